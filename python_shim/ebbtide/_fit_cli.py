"""The table that `ebbtide fit` prints."""

from __future__ import annotations

import json
import os
import sys
import threading
from typing import Any

from rich.console import Console
from rich.table import Table

from . import _dryrun, _fit, _native
from ._errors import EbbtideError
from ._fit import Fit, FitError, Plan

_INTERRUPTED = 130
_GIB = 1 << 30


class _Found:
    """What is known so far; told from several threads."""

    def __init__(self, plan: Plan, is_quiet: bool) -> None:
        self._plan, self._is_quiet = plan, is_quiet
        self._lock = threading.Lock()
        self.fits: list[Fit] = []

    def say(self, line: str) -> None:
        if not self._is_quiet:
            with self._lock:
                print(f"ebbtide fit: {line}", file=sys.stderr, flush=True)

    def add(self, fit: Fit) -> None:
        with self._lock:
            self.fits.append(fit)

    def in_order(self) -> list[Fit]:
        names = [setting.name for setting in self._plan.settings()]
        return sorted(
            self.fits,
            key=lambda fit: (list(self._plan.devices).index(fit.device), names.index(fit.setting)),
        )


def run(
    command: list[str],
    devices: list[str],
    host: str | None,
    timeout: float,
    most: int,
    step: int,
    only: list[str],
    as_json: bool,
) -> int:
    """Prints the table, returns the exit status. Raises EbbtideError for what is wrong."""
    # The stand-ins lie beside the engine, wherever that was found.
    os.environ.setdefault("EBBTIDE_NATIVE_DIR", str(_native.folder()))
    plan = Plan(command, devices, host, timeout, most, step, only)
    found = _Found(plan, is_quiet=as_json)
    status = 0
    try:
        _fit.find(plan, found.say, found.add)
    except (FitError, _dryrun.DryrunError) as error:
        if not found.fits:
            raise EbbtideError(f"fit: {error}") from None
        print(f"ebbtide fit: {error}", file=sys.stderr)
        status = EbbtideError.exit_code
    except KeyboardInterrupt:
        status = _INTERRUPTED
    if as_json:
        print(json.dumps([_as_json(fit) for fit in found.in_order()], indent=1))
    elif found.fits:
        Console().print(_table(found.in_order()))
    return status


def _as_json(fit: Fit) -> dict[str, Any]:
    row: dict[str, Any] = {
        "device": fit.device,
        "setting": fit.setting,
        "longest": fit.longest,
        "fails": fit.fails,
    }
    if fit.report is not None:
        row["time"] = fit.report["time"]
        row["peak_held_bytes"] = max(used["peak_bytes"] for used in fit.report["devices"])
        row["host_bytes"] = fit.report["peak_pinned_bytes"]
    return row


def _table(fits: list[Fit]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("device", "setting"):
        table.add_column(heading, no_wrap=True)
    for heading in ("longest", "gain", "peak held", "host", "step", "MFU"):
        table.add_column(heading, justify="right")
    plain = {fit.device: fit.longest for fit in fits if fit.setting == "as it is"}
    for fit in fits:
        base = plain.get(fit.device, 0)
        gain = f"{fit.longest / base:.2f}x" if base and fit.longest else "-"
        table.add_row(fit.device, fit.setting, str(fit.longest or "none"), gain, *_figures(fit))
    return table


def _figures(fit: Fit) -> tuple[str, str, str, str]:
    if fit.report is None:
        return ("-",) * 4
    held = max(used["peak_bytes"] for used in fit.report["devices"])
    time = fit.report["time"]
    return (
        f"{held / _GIB:.1f} GiB",
        f"{fit.report['peak_pinned_bytes'] / _GIB:.1f} GiB",
        f"{time['step_seconds']:.2f} s",
        f"{100 * time['mfu']:.1f} %",
    )
