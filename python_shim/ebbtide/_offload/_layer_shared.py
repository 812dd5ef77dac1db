"""What all cut layers of one model have in common."""

from __future__ import annotations

import dataclasses
import math
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch

from .._errors import print_line
from .._report import size_text
from ._device_stores import Place, Stores
from ._keeping import Level
from ._layer_record import LayerRecord, Returning
from ._length import Length
from ._options import AUTO, SAVE, Options
from ._peak import Peak
from ._pieces import Policy, Span
from ._spare import Spare

Policies = Callable[[int, Sequence[Span]], Sequence[Policy]]  # (layer, its pieces) -> one for each


@dataclasses.dataclass
class Shared:
    """What all layers of one model have in common, and copies of the model, too."""

    options: Options
    stores: Stores
    policies: Policies | None  # None: by options.alpha
    spare: Spare
    modules: Sequence[weakref.ref[torch.nn.Module]]  # the layers; of a copied model, the original's
    peak: Peak | None = None
    said: set[tuple[str, str]] = dataclasses.field(default_factory=set)
    last: weakref.ref[Returning] | None = None  # the call that went before
    reached: float = math.inf  # the layer that was called last in training
    level: Level | None = None  # the layers that keep all they save in this forward,
    asked: Length = Length()  # for calls of which the device was asked for room
    longest: tuple[Length, int] = (Length(), 0)  # of the longest forward, and bytes that such layers kept in it
    always_per_token: float = 0.0  # bytes: the most that a layer was seen to save whatever its pieces do
    _places: dict[torch.device, Place] = dataclasses.field(default_factory=dict)

    @property
    def kept(self) -> tuple[bool, ...]:
        """For each layer whether it keeps all it saves in this forward; empty: none does."""
        return () if self.level is None else self.level.stays

    def keeps_as(self, level: Level) -> bool:
        """Whether the same layers keep the same in this forward as `level` says."""
        return self.level is not None and (self.level.stays, self.level.attention) == (level.stays, level.attention)

    def keeps_scores(self, index: int) -> bool:
        """Whether this layer keeps heavy attention, too, in this forward."""
        return self.level is not None and bool(self.level.attention) and self.level.attention[index]

    def keeps(self, index: int) -> bool:
        """Whether this layer keeps all it saves in this forward."""
        return bool(self.kept) and self.kept[index]

    @property
    def layers(self) -> int:
        return len(self.modules)

    def at(self, device: torch.device) -> Place:
        """Where layers save that run on this device."""
        store, place = self.stores(device), self._places.get(device)
        if place is None or place.store is not store:
            there = [
                index
                for index, module in enumerate(self.modules)
                if (layer := module()) is not None
                and all(parameter.device == device for parameter in layer.parameters())
            ]
            place = self._places[device] = Place(store, there)
        return place

    def tell_once(self, kind: str, reason: str, line: str) -> None:
        """Print `line` unless this kind of thing was already told this reason."""
        if (kind, reason) not in self.said:
            self.said.add((kind, reason))
            print_line("warning", line)

    def tell_heavy(self, kind: str, record: LayerRecord) -> None:
        """What it costs to save all of such an attention, to a program that asked for it."""
        attention = record.attention
        if attention is None or not attention.is_heavy or not record.saves_attention:
            return
        place = "on the device" if record.stays else "on the host"
        self.tell_once(
            kind, "heavy attention",
            f'attention="{SAVE}": attention of {record.tally.name} ({kind}) saves {size_text(attention.saved_bytes)} of '
            f"scores {place} at {record.call.tokens} tokens, whatever alpha is, and that grows with their square; "
            f'attention="{AUTO}" makes them again in backward instead',
        )  # fmt: skip

    def __deepcopy__(self, memo: dict[int, Any]) -> Shared:
        return self
