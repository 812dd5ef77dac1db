"""Ebbtide's environment variables as far as offload reads them; README.md, Settings, lists all."""

from __future__ import annotations

import os

from ._options import alpha_of, bytes_of


def is_strict() -> bool:
    return os.environ.get("EBBTIDE_STRICT", "").strip() == "1"


def device_budget() -> int | None:
    """EBBTIDE_HBM in bytes; None: no limit but the device's. EbbtideError for what is no size."""
    return bytes_of("EBBTIDE_HBM", os.environ.get("EBBTIDE_HBM", "").strip())


def host_budget() -> int | None:
    """EBBTIDE_HOST in bytes; None: no limit but the machine's. EbbtideError for what is no size."""
    return bytes_of("EBBTIDE_HOST", os.environ.get("EBBTIDE_HOST", "").strip())


def offload_share() -> float | str | None:
    """EBBTIDE_OFFLOAD: a share, "auto", or None for off. EbbtideError for anything else."""
    value = os.environ.get("EBBTIDE_OFFLOAD", "").strip().lower()
    if value in ("", "off"):
        return None
    return alpha_of("EBBTIDE_OFFLOAD", value, also="off, ")
