"""What `ebbtide doctor` finds: one row for each thing that Ebbtide needs."""

from __future__ import annotations

import dataclasses
import functools
import importlib.metadata
import importlib.util
import os
import pathlib
import sys
from collections.abc import Callable, Iterator

from . import __version__, _native
from ._errors import EbbtideError, one_line


@dataclasses.dataclass(frozen=True)
class Finding:
    subject: str
    ok: bool
    text: str


def _packages() -> Iterator[Finding]:
    python = ".".join(map(str, sys.version_info[:3]))
    yield Finding("python", sys.version_info >= (3, 10), python)
    yield Finding("ebbtide", True, f"{__version__} in {pathlib.Path(__file__).resolve().parent}")
    entries = importlib.metadata.entry_points(group="torch.backends")
    linked = any(entry.value.startswith("ebbtide.") for entry in entries)
    on = os.environ.get("TORCH_DEVICE_BACKEND_AUTOLOAD", "1") == "1"
    if not linked:
        yield Finding("autoload", False, "no entry point: install Ebbtide here (pip install .)")
    elif not on:
        yield Finding("autoload", False, "switched off by TORCH_DEVICE_BACKEND_AUTOLOAD")
    else:
        yield Finding("autoload", True, "import torch loads Ebbtide when EBBTIDE is set")


def _engine() -> Iterator[Finding]:
    try:
        library = _native.library()
    except EbbtideError as error:
        yield Finding("engine", False, str(error))
        return
    version = library.ebbtide_version().decode()
    yield Finding("engine", True, f"{version}, {_native.folder() / _native.ENGINE}")
    wrong = library.ebbtide_check_settings()
    setting = os.environ.get("EBBTIDE", "")
    text = {0: "off", 1: "observe", 2: "on"}[library.ebbtide_mode()]
    yield Finding(
        "settings", not wrong, _native.last_error() if wrong else f"EBBTIDE={setting} ({text})"
    )


def _torch() -> Iterator[Finding]:
    if importlib.util.find_spec("torch") is None:
        yield Finding("torch", False, "not installed (pip install torch)")
        return
    # This process only looks: Ebbtide is not to start here, and a strict complaint not to end it.
    os.environ["TORCH_DEVICE_BACKEND_AUTOLOAD"] = "0"
    import torch

    from . import _activation, _upstream

    cuda = f"CUDA {torch.version.cuda}" if torch.version.cuda else "no CUDA"
    yield Finding("torch", True, f"{torch.__version__}, {cuda}")
    for kind in ("cpu", "cuda") if torch.version.cuda else ("cpu",):
        load = functools.partial(_activation.load_adaptor, kind)
        yield _library(f"adaptor {kind}", _native.ADAPTORS[kind], load)
    yield _library("offload", _native.STORE, _activation.load_store)
    if torch.version.cuda:
        backend = _upstream.backend()
        yield Finding("allocator", backend == "native", f"backend {backend}")
    try:
        yield Finding("devices", True, ", ".join(_activation.wanted_adaptors()))
    except EbbtideError as error:
        yield Finding("devices", False, str(error))


def _library(what: str, name: str, load: Callable[[], object]) -> Finding:
    try:
        load()
    except EbbtideError as error:
        return Finding(what, False, str(error))
    return Finding(what, True, str(_native.folder() / name))


def findings() -> list[Finding]:
    """Everything, in the order in which one thing needs another. Never raises."""
    found: list[Finding] = []
    for part in (_packages, _engine, _torch):
        try:
            found.extend(part())
        except Exception as error:  # noqa: BLE001 - a doctor reports what it meets
            found.append(Finding(part.__name__.strip("_"), False, one_line(error)))
    return found
