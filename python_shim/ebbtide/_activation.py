"""Brings Ebbtide into this process: libraries, adaptors, hints, and the end of the work."""

from __future__ import annotations

import atexit
import ctypes
import os
import sys

from . import _marks, _native, _owners, _upstream
from ._abi import Mode
from ._errors import EbbtideError

_active: tuple[str, ...] = ()


def active_adaptors() -> tuple[str, ...]:
    """`cpu`, `cuda` or both while adaptors are installed; empty otherwise."""
    return _active


def _minor(version: str) -> str:
    return ".".join(version.split("+")[0].split(".")[:2])


def version_mismatch(built: str, found: str) -> str:
    """Why these two torch versions do not go together; empty when they do."""
    if _minor(built) == _minor(found):
        return ""
    return (
        f"torch {found} is installed, but Ebbtide was built for torch {built}: install Ebbtide "
        f"again (pip install --force-reinstall --no-deps .) or torch {_minor(built)}"
    )


def wanted_adaptors() -> tuple[str, ...]:
    """From EBBTIDE_DEVICES, or CUDA where there is a device and host memory where there is none."""
    import torch

    chosen = os.environ.get("EBBTIDE_DEVICES", "")
    if chosen:
        kinds = tuple(dict.fromkeys(part.strip() for part in chosen.split(",")))
        if any(kind not in _native.ADAPTORS for kind in kinds):
            raise EbbtideError(
                f"EBBTIDE_DEVICES={chosen} is not understood: allowed are cpu, cuda and cpu,cuda"
            )
        if "cuda" in kinds and torch.version.cuda is None:
            raise EbbtideError(
                f"EBBTIDE_DEVICES={chosen} asks for CUDA, but torch {torch.__version__} is built "
                "without it"
            )
        return kinds
    # device_count() asks NVML and makes no context, so programs may still fork afterwards.
    has_device = torch.version.cuda is not None and torch.cuda.device_count() > 0
    return ("cuda",) if has_device else ("cpu",)


def load_adaptor(kind: str) -> ctypes.CDLL:
    return _fitting(_native.adaptor(kind))


def load_store() -> ctypes.CDLL:
    """The offload's stores: torch.classes.ebbtide.SwapStore is there afterwards, and _native.saving() works."""
    return _fitting(_native.store())


def _fitting(library: ctypes.CDLL) -> ctypes.CDLL:
    """A library that was built for this torch. EbbtideError for another."""
    import torch

    built = library.ebbtide_torch_version().decode()
    mismatch = version_mismatch(built, str(torch.__version__))
    if mismatch:
        raise EbbtideError(mismatch)
    return library


def _finish() -> None:
    if _active:
        _disable()
        _native.library().ebbtide_finish()
        if "ebbtide._offload._report" in sys.modules:
            sys.modules["ebbtide._offload._report"].at_exit.write()


def _finish_after_last_step(library: ctypes.CDLL) -> None:
    # `ebbtide dryrun --steps` ends a program without Python's handlers: plan and report are wanted all the same.
    at_end = getattr(ctypes.CDLL(None), "ebbtide_dryrun_at_end", None)
    if at_end is not None:
        at_end.argtypes, at_end.restype = [ctypes.c_void_p], None
        at_end(ctypes.cast(library.ebbtide_finish, ctypes.c_void_p))


def _disable() -> None:
    _marks.disable()
    _owners.disable()


def _forget_in_child() -> None:
    # A forked child has neither the engine's threads nor, on CUDA, a usable device. What it
    # allocates is served unplanned; it must send no hints and write no report.
    global _active
    _active = ()
    _disable()


def activate() -> None:
    """Load, check and install everything; raises EbbtideError for what cannot be used."""
    global _active
    library = _native.library()
    _native.check(library.ebbtide_check_settings())
    mode = library.ebbtide_mode()
    if mode == Mode.OFF or _active:
        return
    kinds = wanted_adaptors()
    if "cuda" in kinds and _upstream.backend() != "native":
        raise EbbtideError(
            f"the CUDA allocator backend is {_upstream.backend()} ({_upstream.settings()}): "
            "Ebbtide works with backend:native only"
        )
    adaptors = {kind: load_adaptor(kind) for kind in kinds}
    if "cuda" in kinds and mode == Mode.ON:
        _upstream.use_expandable_segments()
    try:
        for kind, adaptor in adaptors.items():
            _native.check(getattr(adaptor, _native.install_name(kind))())
            _active += (kind,)
    finally:  # an adaptor that is in place stays, even if the next one refuses
        if _active:
            _marks.install(_native.mark)
            if os.environ.get("EBBTIDE_TRACE"):
                _owners.install()
            atexit.register(_finish)
            _finish_after_last_step(library)
            os.register_at_fork(after_in_child=_forget_in_child)
