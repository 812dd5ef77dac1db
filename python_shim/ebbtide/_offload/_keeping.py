"""Layers that keep all they save on the device, where it has room: nothing of theirs is copied or computed again."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Sequence

import torch

from .. import is_active
from ._layer_room import has_room_on

_SPARED = 0.05  # of a device, beside what headroom leaves: what is known is known from two steps
_FRAGMENTS = 0.15  # of one whose segments cannot grow, where nothing plans addresses


@dataclasses.dataclass(frozen=True)
class Level:
    """For each layer whether it keeps what it saves, and the bytes of all that do."""

    stays: tuple[bool, ...]
    kept: int


@dataclasses.dataclass(frozen=True)
class Keeping:
    """Chosen by alpha="auto" from steps that were observed.

    usual    the most layers that calls of `rows` tokens have room for, all their sequences together
    levels   this one; more layers, for shorter calls; and fewer, for longer ones. The most come first
    rows     tokens of the longest call in those steps; bytes of levels are for so many
    fixed    bytes that a call takes beside what is alive when it begins, however long it is: gradients
    varying  and those of its tensors at most, but for what layers keep
    """

    usual: Level
    levels: tuple[Level, ...]
    rows: int
    fixed: int
    varying: int

    def level(self, device: torch.device, rows: int, input_bytes: int, gradients: int) -> Level | None:
        """The most layers for which the device has room in a call of so many tokens, and their bytes there.

        By bytes, not time: steps of one length get one answer. What a longer call's tensors need is thought to grow
        with the square, as eager attention's scores do. `input_bytes`: of a layer's input. `gradients`: bytes of
        those that are there already.
        """
        part = rows / self.rows
        needed = self.fixed - gradients + fragment_bytes(device) + self.varying * max(1.0, part) ** 2
        for level in self.levels:
            if has_room_on(device, input_bytes, int(needed + level.kept * part)):
                return Level(level.stays, int(level.kept * part))
        return None


def evenly(chosen: int, others: int, last: int) -> tuple[bool, ...]:
    """`chosen` of so many layers, and the `last` ones behind them. Evenly: copies of the layers between them hide
    behind these, too."""
    turns = [at * (chosen + 1) // (others + 1) for at in range(others + 1)]  # the next one is that of the last ones
    return (*(after > before for before, after in itertools.pairwise(turns)), *[True] * last)


def levels_of(weights: Sequence[float], last: int, room: float) -> tuple[Level | None, tuple[Level, ...]]:
    """The most layers that keep so many bytes each within `room`, beside the `last` ones, which stay anyway; None: no
    others do. And levels with more layers and with fewer: all, half of them, and so on down to it, half as many as
    it has, and so on. Few: each is a program of its own to the planner."""
    others = len(weights) - last

    def level(chosen: int) -> Level:
        stays = evenly(chosen, others, last)
        return Level(stays, int(sum(itertools.compress(weights, stays))))

    most = next((chosen for chosen in range(others, 0, -1) if level(chosen).kept <= room), 0)
    counts = [chosen for chosen in _halves(others) if chosen > most] + _halves(most)
    return level(most) if most else None, tuple(map(level, counts))


def _halves(count: int) -> list[int]:
    return [count >> times for times in range(count.bit_length())]


def spared_bytes(device: torch.device) -> int:
    """Of a device, that are not filled with what layers keep, nor with fragments."""
    return int(_SPARED * _total(device))


def fragment_bytes(device: torch.device) -> int:
    """What torch's allocator may hold of a device and not give out."""
    settings = os.environ.get("PYTORCH_CUDA_ALLOC_CONF") or os.environ.get("PYTORCH_ALLOC_CONF") or ""
    return 0 if is_active() or "expandable_segments:True" in settings else int(_FRAGMENTS * _total(device))


def _total(device: torch.device) -> int:
    return int(torch.cuda.get_device_properties(device).total_memory) if device.type == "cuda" else 0
