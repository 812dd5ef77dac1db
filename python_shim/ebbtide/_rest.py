"""The end of a dry run: torch's threads rest before the interpreter ends."""

from __future__ import annotations

import atexit
import ctypes
import os

from . import _native

_COMPANION = "libebbtide_dryrun_torch.so"


def companion() -> ctypes.CDLL | None:
    """What the simulated GPU has beside torch, if there is one in this process."""
    try:
        return ctypes.CDLL(str(_native.folder() / "dryrun" / _COMPANION), os.RTLD_NOLOAD)
    except OSError:  # not loaded: EBBTIDE_DRYRUN_DEVICE is set, and nothing is simulated
        return None


def rest() -> None:
    """Waits until autograd's threads have let go of the last pass.

    One that asks for the interpreter afterwards would be torn down in the midst of C++, and the
    process with it. Does nothing where the device was not used, or is a real one.
    """
    import torch

    if not torch.cuda.is_initialized():
        return
    found = companion()
    if found is not None:
        # ctypes lets go of the interpreter during the call: the threads may need it once more.
        found.ebbtide_dryrun_rest_autograd()


def install() -> None:
    """Has the program rest when it ends."""
    atexit.register(rest)
