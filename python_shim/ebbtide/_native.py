"""Finds and loads the native libraries."""

from __future__ import annotations

import ctypes
import functools
import importlib.machinery
import importlib.util
import os
import pathlib
from types import ModuleType

from . import _abi
from ._abi import Mark
from ._errors import EbbtideError, one_line

ENGINE = "libebbtide.so"
ADAPTORS = {"cpu": "libebbtide_torch_cpu.so", "cuda": "libebbtide_torch_cuda.so"}
STORE = "libebbtide_torch_store.so"


def folder() -> pathlib.Path:
    """Where the native libraries are: EBBTIDE_NATIVE_DIR, or this package, or a checkout's build."""
    chosen = os.environ.get("EBBTIDE_NATIVE_DIR")
    if chosen:
        return pathlib.Path(chosen)
    package = pathlib.Path(__file__).resolve().parent
    installed = package / "_native"
    checkout = package.parents[1] / "build" / "native"
    if not (installed / ENGINE).exists() and (checkout / ENGINE).exists():
        return checkout
    return installed


def _load(path: pathlib.Path, mode: int) -> ctypes.CDLL:
    if not path.exists():
        raise EbbtideError(
            f"{path.name} is missing in {path.parent}: install Ebbtide where torch is installed "
            "(pip install .), or set EBBTIDE_NATIVE_DIR to the folder that holds it"
        )
    try:
        return ctypes.CDLL(str(path), mode=mode)
    except OSError as error:
        raise EbbtideError(f"{path.name} cannot be loaded: {one_line(error)}") from None


@functools.cache
def library() -> ctypes.CDLL:
    """The engine with its C interface. Global symbols: the adaptors share this one engine."""
    return _declare(_load(folder() / ENGINE, ctypes.RTLD_GLOBAL), _abi.FUNCTIONS)


def part(functions: dict[str, tuple[object, list[object]]]) -> ctypes.CDLL:
    """The engine with one more part of its interface declared: _abi.SWAP_FUNCTIONS and the like."""
    return _declare(library(), functions)


def _declare(
    engine: ctypes.CDLL, functions: dict[str, tuple[object, list[object]]]
) -> ctypes.CDLL:
    try:
        return _abi.declare(engine, functions)
    except AttributeError as error:
        raise EbbtideError(
            f"{ENGINE} in {folder()} is of another version: {one_line(error)}"
        ) from None


@functools.cache
def adaptor(kind: str) -> ctypes.CDLL:
    """The torch adaptor for `cpu` or `cuda`. Requires: torch is imported (it holds the symbols)."""
    library()
    # Lazy: the version can then be asked of an adaptor that another torch lacks functions for.
    loaded = _load(folder() / ADAPTORS[kind], ctypes.RTLD_LOCAL | os.RTLD_LAZY)
    return _abi.declare_adaptor(loaded, install_name(kind))


@functools.cache
def store() -> ctypes.CDLL:
    """The offload's swap store, as classes of torch's. Requires: torch is imported."""
    library()
    # Lazy, as adaptors are.
    loaded = _load(folder() / STORE, ctypes.RTLD_LOCAL | os.RTLD_LAZY)
    if not hasattr(loaded, "PyInit__saving"):
        raise EbbtideError(f"{STORE} in {folder()} is of another version: it holds no module _saving")
    return _abi.declare_version(loaded)


@functools.cache
def saving() -> ModuleType:
    """The module in that library: hooks/torch_offload/python_module.cpp. Requires: store() fits this torch."""
    path = str(folder() / STORE)
    loader = importlib.machinery.ExtensionFileLoader("ebbtide._saving", path)
    spec = importlib.util.spec_from_file_location(loader.name, path, loader=loader)
    assert spec is not None
    try:
        module = importlib.util.module_from_spec(spec)
        loader.exec_module(module)
    except ImportError as error:
        raise EbbtideError(f"{STORE} in {folder()} is of another version: {one_line(error)}") from None
    return module


def install_name(kind: str) -> str:
    return f"ebbtide_torch_{kind}_install"


def mark(kind: Mark | int, source: int, extents: list[int]) -> int:
    """A hint for the engine: see ebbtide_mark_input."""
    input_extents = (ctypes.c_int64 * len(extents))(*extents)
    return int(library().ebbtide_mark_input(kind, source, input_extents, len(extents)))


def last_error() -> str:
    message = library().ebbtide_last_error()
    return one_line(message.decode(errors="replace")) if message else "no reason given"


def check(status: int) -> None:
    """Raise what the library says unless the status is EBBTIDE_OK."""
    if status != _abi.Status.OK:
        raise EbbtideError(last_error())
