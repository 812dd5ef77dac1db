"""Which module is running, for traces: what is allocated inside a module's call belongs to its path.

Installed where a trace is written and nowhere else: it costs two calls into the library for each module's call
(bench/mark_cost.py). A backward has no module, unless it recomputes a forward; it is told by its phase.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable
from typing import Any

import torch

from . import _abi, _native

NameOwner = Callable[[str], int]
SetOwner = Callable[[int], int]

_enabled = False


class Names:
    """Gives modules the numbers of their paths. A root is named by its class; a second root's parts by both."""

    def __init__(self, name_owner: NameOwner) -> None:
        self._name_owner = name_owner
        self._has_root = False
        # By id, which may be given again: the reference tells.
        self._paths: dict[int, tuple[weakref.ref[torch.nn.Module], str]] = {}
        self._numbers: dict[int, tuple[weakref.ref[torch.nn.Module], int]] = {}

    def number(self, module: torch.nn.Module) -> int:
        found = self._numbers.get(id(module))
        if found is not None and found[0]() is module:
            return found[1]
        number = self._name_owner(self._path(module))
        self._numbers[id(module)] = (weakref.ref(module), number)
        return number

    def _path(self, module: torch.nn.Module) -> str:
        known = self._paths.get(id(module))
        if known is None or known[0]() is not module:
            self._add(module)
        return self._paths[id(module)][1]

    def _add(self, root: torch.nn.Module) -> None:
        name = type(root).__name__
        prefix = f"{name}." if self._has_root else ""
        self._has_root = True
        for path, module in root.named_modules():
            self._paths[id(module)] = (weakref.ref(module), f"{prefix}{path}" if path else name)


def wrap(original: Callable[..., Any], names: Names, set_owner: SetOwner) -> Any:
    is_compiling = torch.compiler.is_compiling

    def __call__(self: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        if is_compiling() or not _enabled:
            return original(self, *args, **kwargs)
        before = set_owner(names.number(self))
        try:
            return original(self, *args, **kwargs)
        finally:
            set_owner(before)

    return __call__


def install() -> None:
    """Call it once, after the marks' own installation."""
    global _enabled
    library = _native.part(_abi.TRACE_FUNCTIONS)

    def name_owner(text: str) -> int:
        number = ctypes.c_uint32()
        library.ebbtide_name_owner(text.replace("\0", "?").encode(errors="replace"), ctypes.byref(number))
        return number.value

    torch.nn.Module.__call__ = wrap(torch.nn.Module.__call__, Names(name_owner), library.ebbtide_set_owner)
    _enabled = True


def disable() -> None:
    """A forked child, or the end: the trace takes nothing more."""
    global _enabled
    _enabled = False
