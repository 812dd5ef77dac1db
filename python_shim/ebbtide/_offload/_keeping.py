"""Layers that keep all they save on the device, where it has room: nothing of theirs is copied or computed again."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Sequence

import torch

from .. import is_active
from ._layer_room import has_room

_SPARED = 0.05  # of the device, beside what headroom leaves: what is known is known from two steps
_SPARED_FOR_FRAGMENTS = 0.2  # where blocks of the device's memory cannot grow, and nothing plans addresses


@dataclasses.dataclass(frozen=True)
class Keeping:
    """Chosen by alpha="auto" from steps that were observed.

    stays   for each layer, whether it keeps what it saves
    rows    tokens of a call, of all its sequences together, in those steps
    needed  bytes that such a call takes at most beside what is alive when it begins, gradients included
    """

    stays: tuple[bool, ...]
    rows: int
    needed: int

    def holds(self, x: torch.Tensor, gradients: int) -> bool:
        """Whether the device has room for it in the call that begins with `x`, a layer's input.

        By bytes, not time: steps of one length get one answer. `gradients`: bytes of those that are there already.
        Of longer calls it is assumed that what they need grows with the square, as eager attention's scores do.
        """
        longer = max(1.0, x.shape[0] * x.shape[1] / self.rows)
        return has_room(x, int(self.needed * longer * longer) - gradients)


def most_that_fit(weights: Sequence[float], last: int, room: float) -> tuple[bool, ...]:
    """The most layers, evenly among all, that keep so many bytes each within `room`; the `last` ones stay anyway.
    Empty: no others do.

    Evenly: copies of the layers between them hide behind these, too.
    """
    others = len(weights) - last
    for chosen in range(others, 0, -1):
        turns = [at * (chosen + 1) // (others + 1) for at in range(others + 1)]  # the next one is that of the last ones
        stays = (*(after > before for before, after in itertools.pairwise(turns)), *[True] * last)
        if sum(weight for weight, one in zip(weights, stays, strict=True) if one) <= room:
            return stays
    return ()


def spared_bytes(device: torch.device) -> int:
    """Of a device, that are not filled with what layers keep."""
    settings = os.environ.get("PYTORCH_CUDA_ALLOC_CONF") or os.environ.get("PYTORCH_ALLOC_CONF") or ""
    grows = is_active() or "expandable_segments:True" in settings
    total = torch.cuda.get_device_properties(device).total_memory
    return int((_SPARED if grows else _SPARED_FOR_FRAGMENTS) * total)
