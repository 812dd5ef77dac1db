"""Any file that a report can be made of, told apart by its first bytes."""

from __future__ import annotations

import pathlib

from .._errors import EbbtideError, print_line
from .._problem import STDIN, read_bytes, source_name
from .._report import size_text
from . import _ebbtide_trace, _rmm_log, _torch_snapshot
from ._model import Recording

_PLAN = b"EBBPLAN\0"  # as allocator/runtime/plan_file.cpp has it
_LARGE = 128 << 20  # bytes: reading takes more than a moment


def read(path: str) -> Recording:
    """EbbtideError, in one line that names the file, if it cannot be read."""
    # The library tells what is wrong with a trace, also with one that is cut in its first bytes.
    if path != STDIN and _is_trace(path):
        return _ebbtide_trace.read(path)
    content = read_bytes(path)
    path = source_name(path)
    if content.startswith(_ebbtide_trace.MAGIC):
        raise EbbtideError(f"{path}: a trace is read from a file that is not packed: unpack it with gunzip first")
    if _torch_snapshot.looks_like_one(content):
        return _torch_snapshot.read(content, path)
    if _rmm_log.looks_like_one(content):
        return _rmm_log.read(content, path)
    if not content:
        raise EbbtideError(f"{path} is empty: not an Ebbtide trace, a PyTorch snapshot or an RMM log")
    if content.startswith(_PLAN):
        raise EbbtideError(f"{path} is a plan (EBBTIDE_PLAN), which tells nothing of a run: give the trace of one (EBBTIDE_TRACE)")
    raise EbbtideError(f"{path} is not an Ebbtide trace, a PyTorch memory snapshot (.pickle) or an RMM log (.csv)")


def _is_trace(path: str) -> bool:
    try:
        with pathlib.Path(path).open("rb") as file:
            magic = file.read(len(_ebbtide_trace.MAGIC))
            if file.seek(0, 2) > _LARGE:
                print_line("info", f"reading {path}, {size_text(file.tell())}")
    except OSError as error:
        raise EbbtideError(f"{path}: {error.strerror or error}") from None
    return bool(magic) and _ebbtide_trace.MAGIC.startswith(magic)
