"""How many layers may keep all they save on the device: from the most that was alive in observed steps, for AutoAlpha."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import torch

from ._auto_shares import LayerShares
from ._keeping import Keeping, fragment_bytes, spared_bytes
from ._observed import Footing
from ._registry import registry

if TYPE_CHECKING:
    from ._layer_shared import Shared
    from ._offloaded import Offloaded

_EARLY_INPUTS = 2  # of the weight that a layer's input and attention's output have: what comes back early,
_ASKED_INPUTS = 4  # and what has_room asks for, the first layer's input included
_MOST_LOOKS = 3  # for room for more layers in steps of one length,
_MOST_LOOKS_AT_LONGER = 12  # and in longer ones,
_LONGER = 1.1  # which are so many times as long as those before


class AutoKeeping:
    """Of one model. `value` is what its layers are to be told."""

    def __init__(self, offloaded: Offloaded) -> None:
        self._offloaded, self._peak = offloaded, offloaded.peak
        self.value: Keeping | None = None
        self._first: Footing | None = None  # of the forwards that were seen,
        self._latest = Footing(0, 0)  # and of the last one
        self._has_stepped = False  # an optimizer has, since the first: its states are there
        self._looks = 0  # so often the device was asked for room

    def note_begin(self, device: torch.device) -> None:
        """The first layer of a training forward begins."""
        now = self._latest = Footing.of(device, self._offloaded.spare.gradient_bytes(device))
        if self._first is None:
            self._first = now
        elif now.gradients == 0 or now.others > self._first.others:
            self._has_stepped = True

    def first(self, device: torch.device, shares: LayerShares) -> None:
        """As many layers as there is room for beside steps in which nothing more was kept, swapped or fetched early."""
        self.value = None
        self._choose(device, shares, shares.moving_bytes + _EARLY_INPUTS * shares.always_bytes, kept_before=0)

    @property
    def may_be_more(self) -> bool:
        """Whether some keep what they save, and others do not, or their heavy attention is made again."""
        return self.value is not None and self.value.usual != self.value.levels[0]

    def more(self, device: torch.device, shares: LayerShares) -> bool:
        """Whether there are more, beside steps with these shares: what was alive at most before may have been so at
        another moment than what they keep."""
        holds = self.value is None or self._shared.keeps_as(self.value.usual)
        if not holds or self._looks >= _MOST_LOOKS or not shares.always_bytes:  # what stays anyway has shares
            return False
        kept, levels, before = shares.kept, shares.levels, shares.kept_bytes
        former, moving = self.value, shares.moving_bytes * (1 - max(shares.most))
        if self._choose(device, shares, moving, before) and shares.kept_bytes > before:
            return True
        shares.kept, shares.levels, self.value = kept, levels, former
        return False

    def less(self, shares: LayerShares, excess: int) -> bool:
        """Whether there are fewer that take so many bytes less, for good: for steps whose plan does not fit."""
        if self.value is None:
            return False
        shares.keep(self._offloaded.options.keep_last, shares.kept_bytes - excess)
        if shares.kept is None:
            self.value = None
        else:  # shorter calls have no more layers keep what they save, either
            levels = shares.levels[shares.levels.index(shares.kept) :]
            self.value = dataclasses.replace(self.value, usual=shares.kept, levels=levels)
        self._looks = _MOST_LOOKS
        return True

    @property
    def was_longer(self) -> bool:
        """Whether a call was longer than those that the layers were chosen by: it says more of what there is room for."""
        return self.value is not None and self._shared.longest[0].pairs > _LONGER**2 * self.value.length.pairs

    @property
    def looks_at_longer(self) -> bool:
        """Whether it is worth waiting for such a call."""
        return self.value is not None and self._looks < _MOST_LOOKS_AT_LONGER

    def longer(self, device: torch.device, shares: LayerShares) -> None:
        """Chooses anew by the longest call. What is on its way need not have been a part of the most that was alive."""
        assert self.value is not None
        self._looks += 1
        (longest, kept_before), before = self._shared.longest, self.value.length
        shares.lengthen(longest.rows / before.rows, longest.pairs / before.pairs)
        self._choose(device, shares, shares.moving_bytes, kept_before)

    def _choose(self, device: torch.device, shares: LayerShares, moving: float, kept_before: int) -> bool:
        """Whether there is a level for the longest call, beside steps that kept so much. `moving`: bytes on their way
        beside those of these steps.

        None where little memory is asked for (hbm, or how long pieces are), nor where others choose at the same time, or
        layers run on several devices: nobody knows what there is room for.
        """
        options, spare = self._offloaded.options, self._offloaded.spare
        room = self._peak.headroom(device)
        if room is None or options.hbm is not None or options.mini_sequence is not None or not self._is_alone:
            return False
        room -= int(moving + _ASKED_INPUTS * shares.always_bytes) + spared_bytes(device) + fragment_bytes(device)
        if not self._has_stepped:  # gradients are summed up
            room -= spare.state_bytes(device)
        shares.keep(options.keep_last, kept_before + room)
        if shares.kept is None:
            return False
        self._looks += 1
        fixed = spare.trained_bytes(device)
        varying = self._peak.bytes(device) + int(moving) - kept_before - self._latest.others - fixed
        self.value = Keeping(shares.kept, shares.levels, self._shared.longest[0], fixed, max(0, varying))
        return True

    @property
    def _shared(self) -> Shared:
        assert self._offloaded.layers is not None
        return self._offloaded.layers.shared

    @property
    def _is_alone(self) -> bool:
        """Whether no other model trains (a copy for averages does not), and this one on a single device."""
        used = [{tally.device for tally in one.layers.counts() if tally.calls} for one in registry.models() if one.layers]
        assert self._offloaded.layers is not None
        return sum(map(bool, used)) == 1 and max(map(len, used)) == 1
