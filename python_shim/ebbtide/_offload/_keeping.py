"""Layers that keep all they save on the device, where it has room: nothing of theirs is copied or computed again."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch

from .. import is_active
from ._layer_room import has_room_on
from ._length import Length

_SPARED = 0.05  # of a device, beside what headroom leaves: what is known is known from two steps
_FRAGMENTS = 0.15  # of one whose segments cannot grow, where nothing plans addresses


@dataclasses.dataclass(frozen=True)
class Level:
    """For each layer whether it keeps what it saves, and what heavy attention saves, too; and the bytes of all that do.

    Such attention (Note [Heavy attention]) is kept only where all layers keep everything else: a byte of that saves
    more work.
    """

    stays: tuple[bool, ...]
    kept: int  # bytes that grow with a call's tokens,
    square: int = 0  # and those that are thought to grow with their square
    attention: tuple[bool, ...] = ()  # empty: of none

    @property
    def total(self) -> int:
        return self.kept + self.square

    def at(self, part: float, square: float) -> Level:
        """In a call of so many times as many tokens, and of pairs of them. Layers that run whole need not grow with
        pairs."""
        return dataclasses.replace(self, kept=int(self.kept * part), square=int(self.square * max(part, square)))


class Weight(NamedTuple):
    """Bytes that one layer keeps in the longest call."""

    cut: float  # of one that runs in pieces, but for its attention if that is heavy,
    attention: float  # and of that,
    whole: float = 0.0  # or of one that runs whole, attention included


@dataclasses.dataclass(frozen=True)
class Keeping:
    """Chosen by alpha="auto" from steps that were observed.

    usual    the most layers that calls of `length` have room for
    levels   this one; more bytes of layers, for shorter calls; and fewer, for longer ones. The most come first
    length   that of the longest call in those steps; bytes of levels are for such a one
    fixed    bytes that a call takes beside what is alive when its first layer begins, however long it is: gradients
    varying  and those of its tensors at most, but for what layers keep
    """

    usual: Level
    levels: tuple[Level, ...]
    length: Length
    fixed: int
    varying: int

    def level(self, device: torch.device, length: Length, input_bytes: int, gradients: int) -> Level | None:
        """The most layers for which the device has room in a call of this length, and their bytes there.

        By bytes, not time: steps of one length get one answer. What a longer call's tensors need is thought to grow
        with the pairs of tokens in a sequence, as eager attention's scores do. `input_bytes`: of a layer's input. `gradients`: bytes of
        those that are there already.
        """
        part, square = length.rows / self.length.rows, length.pairs / self.length.pairs
        needed = self.fixed - gradients + fragment_bytes(device) + self.varying * max(1.0, part, square)
        for level in (each.at(part, square) for each in self.levels):
            if has_room_on(device, input_bytes, int(needed + level.total)):
                return level
        return None


def evenly(chosen: int, others: int, last: int) -> tuple[bool, ...]:
    """`chosen` of so many layers, and the `last` ones behind them. Evenly: copies of the layers between them hide
    behind these, too."""
    turns = [at * (chosen + 1) // (others + 1) for at in range(others + 1)]  # the next one is that of the last ones
    return (*(after > before for before, after in itertools.pairwise(turns)), *[True] * last)


def levels_of(weights: Sequence[Weight], last: int, room: float) -> tuple[Level | None, tuple[Level, ...]]:
    """The most bytes of layers that keep what they save within `room`, the `last` ones among them; None: not even these do.
    And levels with more layers and with fewer: all, half of them, and so on down to it, half as many as it has, and
    so on. Few: each is a program of its own to the planner. The last layers keep heavy attention first, since none is
    alive any more when the first ones make theirs again."""
    last = min(last, len(weights))
    others = len(weights) - last
    with_attention = len(weights) if any(weight.attention for weight in weights) else 0

    def level(chosen: int) -> Level:
        """More than there are others: layers that keep attention, too."""
        stays = evenly(min(chosen, others), others, last)
        staying = list(itertools.compress(weights, stays))
        kept, square = sum(weight.cut for weight in staying), sum(weight.whole for weight in staying)
        if chosen <= others:
            return Level(stays, int(kept), int(square))
        without = len(weights) - (chosen - others)
        square += sum(weight.attention for weight in weights[without:])
        return Level(stays, int(kept), int(square), tuple(i >= without for i in range(len(weights))))

    counts = range(0 if last else 1, others + with_attention + 1)
    fitting = [(level(chosen).total, chosen) for chosen in counts if level(chosen).total <= room]
    steps = {others + chosen for chosen in _halves(with_attention)} | set(_halves(others))
    if not fitting:
        return None, _by_bytes(map(level, steps))
    weight, most = max(fitting)  # of unlike layers fewer may hold more
    steps = {chosen for chosen in steps if level(chosen).total > weight}
    fewer = {others + chosen for chosen in _halves(most - others)} | {*_halves(min(most, others)), *counts[:1]}
    steps |= {chosen for chosen in fewer if level(chosen).total < weight}
    return level(most), _by_bytes([level(most), *map(level, steps)])


def _by_bytes(levels: Iterable[Level]) -> tuple[Level, ...]:
    return tuple(sorted(levels, key=lambda level: level.total, reverse=True))


def _halves(count: int) -> list[int]:
    """This many, half of it, and so on down to one; of less than one, none."""
    return [count >> times for times in range(count.bit_length())] if count > 0 else []


def spared_bytes(device: torch.device) -> int:
    """Of a device, that are not filled with what layers keep, nor with fragments."""
    return int(_SPARED * _total(device))


def fragment_bytes(device: torch.device) -> int:
    """What torch's allocator may hold of a device and not give out."""
    settings = os.environ.get("PYTORCH_CUDA_ALLOC_CONF") or os.environ.get("PYTORCH_ALLOC_CONF") or ""
    return 0 if is_active() or "expandable_segments:True" in settings else int(_FRAGMENTS * _total(device))


def _total(device: torch.device) -> int:
    return int(torch.cuda.get_device_properties(device).total_memory) if device.type == "cuda" else 0
