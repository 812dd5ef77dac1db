"""The one place that knows every model with offload on, every tag, and their stores."""

from __future__ import annotations

import dataclasses
import threading
import weakref
import zlib
from typing import TYPE_CHECKING

import torch

from .. import _marks
from ._environment import host_budget
from ._store import Saved, Store
from ._store_choice import make_store

if TYPE_CHECKING:
    from ._offload_stats import OffloadStats
    from ._offloaded import Offloaded


@dataclasses.dataclass
class TagCount:
    """What was saved under one name since the start."""

    name: str
    blocks: int = 0
    saved_bytes: int = 0


class Registry:
    """Holds no model. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._models: weakref.WeakSet[Offloaded] = weakref.WeakSet()
        self._past: list[OffloadStats] = []
        self._numbers = 0
        self._tags: dict[str, TagCount] = {}
        self._stores: dict[torch.device, Store] = {}  # of tags; models have stores of their own

    def add(self, model: Offloaded) -> int:
        """The model's number: 1 for the first."""
        with self._lock:
            self._models.add(model)
            self._numbers += 1
            _marks.set_form(self.form)
            return self._numbers

    def retire(self, model: Offloaded, stats: OffloadStats) -> None:
        """The model is not offloaded any more; its numbers stay for the report."""
        with self._lock:
            self._models.discard(model)
            self._past.append(stats)

    def form(self, extents: list[int]) -> tuple[int, list[int]]:
        """Of the program of a step whose first input is batch x tokens: see _marks.set_form()."""
        models = self.models()
        if not models or len(extents) < 2 or not all(extents[:2]):
            return 0, []
        batch, tokens = extents[:2]
        forms = [form for model in models for form in model.forms(batch, tokens)]
        number = zlib.crc32(repr([form.counts for form in forms]).encode()) & 0xFFFF or 1
        return number, [piece for form in forms for piece in form.pieces]

    def past(self) -> list[OffloadStats]:
        with self._lock:
            return list(self._past)

    def models(self) -> list[Offloaded]:
        with self._lock:
            return sorted(self._models, key=lambda one: one.number)

    def count(self, tag: str, saved: list[Saved]) -> None:
        with self._lock:
            counted = self._tags.setdefault(tag, TagCount(tag))
            counted.blocks += 1
            counted.saved_bytes += sum(one.size_bytes for one in saved)

    def tags(self) -> list[TagCount]:
        with self._lock:
            return list(self._tags.values())

    def store_of(self, device: torch.device) -> Store:
        """The store of tags for one device."""
        with self._lock:
            if device not in self._stores:
                self._stores[device] = make_store(device, host_budget())
            return self._stores[device]

    def tag_stores(self) -> list[Store]:
        with self._lock:
            return list(self._stores.values())


registry = Registry()
