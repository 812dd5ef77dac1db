"""Who allocated, and in which phase, as far as a recorded stack tells."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ._model import NO_STACK, Phase

# Nobody looks for what everybody calls, nor for our own wrapper of modules.
_TORCH = re.compile(r"/(site|dist)-packages/(torch|accelerate|einops)/|/ebbtide/_\w+\.py$")
_GRADIENT = re.compile(r"(\w+Backward\d*)(_apply_functional|::)")
_OPERATOR = re.compile(r"at::_ops::(\w+)::")
_MOST_OWNERS = 100_000
Frames = Sequence[Mapping[str, Any]] | None


class Stacks:
    """Gives each stack an owner's number and a phase. Equal stacks are one object in a snapshot: each is read once."""

    def __init__(self, are_recorded: bool) -> None:
        self._are_recorded = are_recorded
        self.owners = [NO_STACK, "from before the recording", "more owners", "backward"]
        self._numbers = {name: number for number, name in enumerate(self.owners)}
        self._read: dict[int, tuple[Frames, int, Phase]] = {}

    def owner(self, frames: Frames, is_from_before: bool = False) -> int:
        if not frames:
            # Autograd's threads have no Python stack.
            return 1 if is_from_before else 3 if self._are_recorded else 0
        return self._of(frames)[1]

    def phase(self, frames: Frames, is_stepping: bool) -> Phase:
        if is_stepping:
            return Phase.OPTIMIZER
        if not frames:
            return Phase.BACKWARD if self._are_recorded else Phase.UNKNOWN
        return self._of(frames)[2]

    def _of(self, frames: Frames) -> tuple[Frames, int, Phase]:
        found = self._read.get(id(frames))
        if found is None:
            # The frames are kept, so that no other object gets their id.
            found = self._read[id(frames)] = (frames, self._number(_owner(frames or ())), _phase(frames or ()))
        return found

    def _number(self, name: str) -> int:
        if name not in self._numbers:
            if len(self.owners) >= _MOST_OWNERS:
                return 2
            self._numbers[name] = len(self.owners)
            self.owners.append(name)
        return self._numbers[name]


def _parts(frame: Mapping[str, Any]) -> tuple[str, str, Any]:
    return str(frame.get("filename", "")), str(frame.get("name", "")), frame.get("line", 0)


def _is_python(file: str) -> bool:
    """Also of what was typed or passed with -c: <stdin>, <string>."""
    return file.endswith(".py") or file.startswith("<") and not file.startswith("<frozen")


def _owner(frames: Sequence[Mapping[str, Any]]) -> str:
    """The innermost line of the program; else the gradient or operator that C++ was computing."""
    python = [(file, name, line) for file, name, line in map(_parts, frames) if _is_python(file)]
    of_program = [frame for frame in python if not _TORCH.search(frame[0])]
    for file, name, line in of_program or python:
        return f"{'/'.join(file.split('/')[-2:])}:{line} {name}"[:200]
    names = [name for _, name, _ in map(_parts, frames)]
    for pattern in (_GRADIENT, _OPERATOR):
        for name in names:
            if found := pattern.search(name):
                return found[1]
    return (names[0] if names else NO_STACK)[:200]


def _phase(frames: Sequence[Mapping[str, Any]]) -> Phase:
    parts = [_parts(frame) for frame in frames]
    if any("/torch/optim/" in file for file, _, _ in parts):
        return Phase.OPTIMIZER
    for file, name, _ in parts:
        if name.startswith("torch::autograd::Engine::") or file.endswith(("torch/autograd/__init__.py", "torch/autograd/graph.py")):
            return Phase.BACKWARD
    if any(name in ("forward", "_call_impl") for _, name, _ in parts):
        return Phase.FORWARD
    return Phase.SETUP if any(_is_python(file) for file, _, _ in parts) else Phase.UNKNOWN
