"""Who allocated, and in which phase, as far as a recorded stack tells."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ._model import NO_STACK, Phase

# Nobody looks for what everybody calls, nor for our own wrapper of modules.
_TORCH = re.compile(r"/(site|dist)-packages/(torch|accelerate|einops)/|/ebbtide/_[\w/]+\.py$")
_GRADIENT = re.compile(r"(\w+Backward\d*)(_apply_functional|::)")
_OPERATOR = re.compile(r"at::_ops::(\w+)::")
# C++ of torch and of what it stands on, in our traces: "library.so+0xoffset name".
_LIBRARY = re.compile(r"(lib[\w.+-]+\.so[\w.]*|python[\d.]*)\+0x")
_OFFSET = re.compile(r"\S+\+0x[0-9a-f]+( |$)")
# How a stack gets to the allocator and is taken: every one has it.
_PLUMBING = re.compile(
    r"torch::unwind::|torch::CapturedTraceback::|gather_with_cpp|CUDACachingAllocator|at::detail::empty_"
    r"|wrap_kernel_functor|wrapper_CUDA|::redispatch"
)
_MOST_OWNERS = 100_000
Frames = Sequence[Mapping[str, Any]] | None


class Stacks:
    """Gives each stack an owner's number and a phase. Equal stacks are one object in a snapshot: each is read once."""

    def __init__(self, are_recorded: bool) -> None:
        self._are_recorded = are_recorded
        self.owners = [NO_STACK, "from before the recording", "more owners", "backward"]
        self._numbers = {name: number for number, name in enumerate(self.owners)}
        self._read: dict[int, tuple[Frames, int, Phase, int]] = {}
        self._by_number: list[Frames] = [None]

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

    def number(self, frames: Frames) -> int:
        """For frames_of(); 0 where there are none."""
        return self._of(frames)[3] if frames else 0

    def frames_of(self, number: int) -> tuple[str, ...]:
        """The innermost first: "file:line name"; of C++ without a file, the name."""
        parts = [_parts(frame) for frame in self._by_number[number] or ()]
        return tuple(name if file in ("", "??") else f"{file}:{line} {name}" for file, name, line in parts)

    def _of(self, frames: Frames) -> tuple[Frames, int, Phase, int]:
        found = self._read.get(id(frames))
        if found is None:
            # The frames are kept, so that no other object gets their id.
            owner, phase = self._number(_owner(frames or ())), _phase(frames or ())
            found = self._read[id(frames)] = (frames, owner, phase, len(self._by_number))
            self._by_number.append(frames)
        return found

    def _number(self, name: str) -> int:
        if name not in self._numbers:
            if len(self.owners) >= _MOST_OWNERS:
                return 2
            self._numbers[name] = len(self.owners)
            self.owners.append(name)
        return self._numbers[name]


def of_program(frames: Sequence[str], most: int) -> list[str]:
    """Lines of a stack that a reader looks for, the innermost first: the program's own in Python, else any in Python, else
    the program's own in C++, else what torch was doing."""
    python = [text for text in frames if _is_python(text.rsplit(":", 1)[0])]
    own = [text for text in python if not _TORCH.search(text.split(":", 1)[0])]
    own_cpp = [text for text in frames if _OFFSET.match(text) and not _LIBRARY.match(text)]
    torchs = [_short(text) for text in frames if not _PLUMBING.search(text)]
    return list([_near(text) for text in own or python] or own_cpp or dict.fromkeys(torchs) or frames)[:most]


def _near(line: str) -> str:
    """With the end of its path, as owners are named."""
    return "/".join(line.split("/")[-2:])


def _short(cpp: str) -> str:
    """A function of C++ without what it takes."""
    return cpp.replace("(anonymous namespace)::", "").split("(", 1)[0].split("<", 1)[0]


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
