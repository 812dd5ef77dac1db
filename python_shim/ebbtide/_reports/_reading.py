"""Any file that a report can be made of, told apart by its first bytes."""

from __future__ import annotations

import pathlib

from .._errors import EbbtideError
from .._problem import read_bytes
from . import _ebbtide_trace, _rmm_log, _torch_snapshot
from ._model import Recording


def read(path: str) -> Recording:
    """EbbtideError, in one line that names the file, if it cannot be read."""
    try:
        with pathlib.Path(path).open("rb") as file:
            magic = file.read(len(_ebbtide_trace.MAGIC))
    except OSError as error:
        raise EbbtideError(f"{path}: {error.strerror or error}") from None
    # The library tells what is wrong with a trace, also with one that is cut in its first bytes.
    if magic and _ebbtide_trace.MAGIC.startswith(magic):
        return _ebbtide_trace.read(path)
    content = read_bytes(path)
    if _torch_snapshot.looks_like_one(content):
        return _torch_snapshot.read(content, path)
    if _rmm_log.looks_like_one(content):
        return _rmm_log.read(content, path)
    if not content:
        raise EbbtideError(f"{path} is empty: not an Ebbtide trace, a PyTorch snapshot or an RMM log")
    raise EbbtideError(f"{path} is not an Ebbtide trace, a PyTorch memory snapshot (.pickle) or an RMM log (.csv)")
