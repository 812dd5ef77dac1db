"""A model's stores: one for each device that its layers run on, made when the first of them does.

A model may be moved after it was offloaded (a Trainer does that), or lie on several devices.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch

from ._layer_budget import Room
from ._native_saving import NativeKeepStore
from ._store import KeepStore, Store
from ._store_choice import make_store

Stores = Callable[[torch.device], Store]


class DeviceStores:
    """The host budget is shared alike by the devices that a model lies on. A copy of the model saves to the
    same stores."""

    def __init__(self, model: torch.nn.Module, host: int | None, strict: bool, models: int) -> None:
        """`models`: how many share the budget."""
        # The parts: while its head runs, a model does not know all of them.
        self._parts = [weakref.ref(part) for part in model.modules()]
        self._host, self._strict, self._models = host, strict, models
        self._stores: dict[torch.device, Store] = {}

    def __call__(self, device: torch.device) -> Store:
        if device not in self._stores:
            places = self._places()
            # Nothing more is saved where the model was before: what is left there goes with its graphs.
            self._stores = {place: store for place, store in self._stores.items() if place in places}
            sharing = len({device, *(place for place in places if place.type == device.type)})
            self._stores[device] = make_store(device, self._host, self._strict, sharing * self._models)
        return self._stores[device]

    def _places(self) -> set[torch.device]:
        parts = (part for reference in self._parts if (part := reference()) is not None)
        return {one.device for part in parts for one in part._parameters.values() if one is not None}

    def __deepcopy__(self, memo: dict[int, Any]) -> DeviceStores:
        return self

    def all(self) -> Sequence[Store]:
        return list(self._stores.values())


class Place:
    """Where layers save that run on one device."""

    def __init__(self, store: Store, layers: Sequence[int]) -> None:
        """`layers`: the indices of those that are there, in order."""
        self.store = store
        self.kept: Store = NativeKeepStore() if store.is_native else KeepStore()
        self._later = {index: len(layers) - at for at, index in enumerate(layers)}

    def later(self, index: int, layers: int) -> int:
        """How many layers save here from this one on; of `layers` if it is not known to be here."""
        return self._later.get(index, layers - index)

    def is_first(self, index: int) -> bool:
        return index == next(iter(self._later), 0)

    def room(self, hbm: int | None) -> Room:
        """What budgets have left."""
        held = self.kept.held_bytes + self.store.held_bytes
        device = math.inf if hbm is None else max(0, hbm - held)
        stats = getattr(self.store, "stats", None)
        if stats is None:
            return Room(0 if isinstance(self.store, KeepStore) else math.inf, device)
        now = stats()
        return Room(min(now.host_budget_bytes, now.pinned_limit_bytes) - now.live_bytes, device)

    def live_on_host(self) -> int:
        """Bytes in host memory; 0 for a store that has none."""
        stats = getattr(self.store, "stats", None)
        return 0 if stats is None else int(stats().live_bytes)

    def reserve(self, size: int) -> None:
        """Pin so many bytes of host memory in all, at once rather than step by step."""
        reserve = getattr(self.store, "reserve", None)
        if reserve is not None:
            reserve(size)
