"""What all cut layers of one model have in common."""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch

from .._errors import print_line
from ._device_stores import Place, Stores
from ._layer_record import LayerRecord
from ._options import Options
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
    said: set[tuple[str, str]] = dataclasses.field(default_factory=set)
    last: weakref.ref[LayerRecord] | None = None  # the call that went before
    always_per_token: float = 0.0  # bytes: the most that a layer was seen to save whatever its pieces do
    _places: dict[torch.device, Place] = dataclasses.field(default_factory=dict)

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

    def __deepcopy__(self, memo: dict[int, Any]) -> Shared:
        return self
