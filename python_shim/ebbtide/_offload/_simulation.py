"""Whether CUDA is simulated in this process (`ebbtide dryrun`): then values mean nothing."""

from __future__ import annotations

import ctypes
import functools


@functools.cache
def is_simulated() -> bool:
    return hasattr(ctypes.CDLL(None), "ebbtide_dryrun_peak")
