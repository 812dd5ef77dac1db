"""Where saved tensors of a model go: to host memory through the engine, or nowhere."""

from __future__ import annotations

import os
import pathlib
import re

import torch

from .._errors import EbbtideError, print_line
from ._options import host_memory
from ._store import KeepStore, Store

_SHARE = 0.75  # of what is available: the program's own host memory grows, too
_MEMORY = pathlib.Path("/proc/meminfo")


def _available() -> int:
    """Host memory for a program that names no budget. What caches of files hold is given back when it is asked for."""
    try:
        found = re.search(r"^MemAvailable:\s*(\d+) kB$", _MEMORY.read_text(), re.MULTILINE)
    except OSError:
        found = None
    if found:
        free = int(found[1]) << 10
    else:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return int(_SHARE * min(free, host_memory()))


def make_store(
    device: torch.device, host: int | None, strict: bool = False, sharing: int = 1
) -> Store:
    """Host memory of at most `host` bytes (None: three quarters of what is available); the device itself for 0. `sharing`: devices
    that share it alike.

    Without the native library it is the device, too, and one line says so; under `strict` it is an
    EbbtideError.
    """
    if host == 0:
        return KeepStore()
    try:
        from ._swap_store import SwapStore

        return SwapStore(device, (_available() if host is None else host) // sharing)
    except EbbtideError as error:
        if strict:
            raise
        print_line("warning", f"offload: {error}; saved tensors stay on the device")
        return KeepStore()
