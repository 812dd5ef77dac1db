"""Ebbtide: a CUDA memory allocator for PyTorch that knows what is coming.

Set EBBTIDE=1 and run your program; nothing else is needed. The functions here are for programs that
want to say more: where an iteration begins, when to plan, what was reached. They may stay in a
program that runs without Ebbtide: step, warmup and wait_for_plans then do nothing.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ._errors import EbbtideError

if TYPE_CHECKING:
    from ._offload._api import offload
    from ._offload._tag import tag
    from ._stats import Stats
    from ._step_in_backward import step_in_backward
    from ._trainer import TrainerCallback
    from ._typical import typical

__version__ = "0.1.0"
__all__ = [
    "EbbtideError",
    "Stats",
    "TrainerCallback",
    "is_active",
    "offload",
    "report",
    "stats",
    "step",
    "step_in_backward",
    "tag",
    "typical",
    "wait_for_plans",
    "warmup",
]


# `import torch` loads this file even where EBBTIDE is unset: load no more than that needs.
_LATE = {
    "Stats": "._stats",
    "TrainerCallback": "._trainer",
    "offload": "._offload._api",
    "step_in_backward": "._step_in_backward",
    "tag": "._offload._tag",
    "typical": "._typical",
}


def __getattr__(name: str) -> Any:
    if name in _LATE:
        return getattr(importlib.import_module(_LATE[name], __name__), name)
    raise AttributeError(f"module 'ebbtide' has no attribute {name!r}")


def is_active() -> bool:
    """Whether an adaptor is installed in this process (EBBTIDE=1 or observe, and no complaint)."""
    # Only the autoloader can have made it active; do not import torch merely to answer "no".
    activation = sys.modules.get("ebbtide._activation")
    return activation is not None and bool(activation.active_adaptors())


def _library() -> ctypes.CDLL | None:
    """The engine if it is active, None if it is not wanted. Without torch: EbbtideError."""
    if is_active():
        from . import _native

        return _native.library()
    if importlib.util.find_spec("torch") is None:
        raise EbbtideError("torch is not installed: Ebbtide needs it (pip install torch)")
    return None


def _active_library() -> ctypes.CDLL:
    library = _library()
    if library is None:
        setting = os.environ.get("EBBTIDE", "")
        if setting in ("", "0"):
            raise EbbtideError("Ebbtide is not active: start the program with EBBTIDE=1")
        raise EbbtideError(
            f"Ebbtide is not active although EBBTIDE={setting}: import torch first, and see its "
            "warning or `ebbtide doctor`"
        )
    return library


def step() -> None:
    """Say that a new iteration begins here. Only a hint; programs do well without it."""
    library = _library()
    if library is not None:
        library.ebbtide_step()


@contextlib.contextmanager
def warmup() -> Iterator[None]:
    """Around exactly one iteration: it is observed, and planned when the block ends.

    An iteration that raises is not planned any differently: the exception passes through, and the
    engine finds out from the next ones.
    """
    library = _library()
    if library is None:
        yield
        return
    from . import _native

    _native.check(library.ebbtide_warmup_begin())
    try:
        yield
    except BaseException:
        library.ebbtide_warmup_end()
        raise
    _native.check(library.ebbtide_warmup_end())


def wait_for_plans() -> None:
    """Wait until plans being made in the background are in force. For tests and measurements."""
    library = _library()
    if library is not None:
        from . import _native

        _native.check(library.ebbtide_wait_for_plans())


def _offloads() -> bool:
    """Whether a model is offloaded, or was, or a tag was used, in a program that is not served."""
    if is_active():
        return False
    from . import _stats

    return _stats.read_offload() is not None


def report() -> str:
    """The report that is printed at exit, as of now. A notebook shows it as a picture."""
    from ._reports._notebook import Report

    offload_text = ""
    if "ebbtide._offload._report" in sys.modules:
        from ._offload import _offload_stats, _report

        offload_text = _report.text(_offload_stats.read())
    if _offloads():
        return Report(offload_text)
    library = _active_library()
    length = library.ebbtide_report(None, 0)
    while True:
        room = ctypes.create_string_buffer(length + 1)
        needed = library.ebbtide_report(room, len(room))
        if needed <= length:
            return Report(room.value.decode(errors="replace") + offload_text)
        length = needed  # other threads went on allocating, and the numbers grew


def stats(device: object = None) -> Stats:
    """Numbers of a device: an index, "cpu", "cuda:0", a torch.device; None for the first served.

    `stats().offload` is of all devices, and there without EBBTIDE=1, too.
    """
    from . import _stats

    if _offloads():
        return _stats.without_engine()
    _active_library()
    if device is not None:
        return _stats.read(_stats.device_index(device))
    served = _stats.devices()
    if not served:
        raise EbbtideError("no device has been used yet: ask after the first allocation")
    return _stats.read(served[0])
