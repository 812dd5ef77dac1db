"""What all cut layers of one model have in common."""

from __future__ import annotations

import dataclasses
import math
import weakref
from collections.abc import Callable, Sequence
from typing import Any

from .._errors import print_line
from ._layer_budget import Room
from ._layer_record import LayerRecord
from ._native_saving import NativeKeepStore
from ._options import Options
from ._pieces import Policy, Span
from ._store import KeepStore, Store

Policies = Callable[[int, Sequence[Span]], Sequence[Policy]]  # (layer, its pieces) -> one for each


@dataclasses.dataclass
class Shared:
    """What all layers of one model have in common, and copies of the model, too."""

    options: Options
    store: Store
    policies: Policies | None  # None: by options.alpha
    layers: int
    said: set[tuple[str, str]] = dataclasses.field(default_factory=set)
    last: weakref.ref[LayerRecord] | None = None  # the call that went before
    always_per_token: float = 0.0  # bytes: the most that a layer was seen to save whatever its pieces do

    def __post_init__(self) -> None:
        self.kept: Store = NativeKeepStore() if self.store.is_native else KeepStore()

    def room(self) -> Room:
        """What budgets have left."""
        hbm = self.options.hbm
        held = self.kept.held_bytes + self.store.held_bytes
        device = math.inf if hbm is None else max(0, hbm - held)
        stats = getattr(self.store, "stats", None)
        if stats is None:
            return Room(0 if isinstance(self.store, KeepStore) else math.inf, device)
        now = stats()
        return Room(min(now.host_budget_bytes, now.pinned_limit_bytes) - now.live_bytes, device)

    def tell_once(self, kind: str, reason: str, line: str) -> None:
        """Print `line` unless this kind of thing was already told this reason."""
        if (kind, reason) not in self.said:
            self.said.add((kind, reason))
            print_line("warning", line)

    def __deepcopy__(self, memo: dict[int, Any]) -> Shared:
        return self

    def live_on_host(self) -> int:
        """Bytes in host memory; 0 for a store that has none."""
        stats = getattr(self.store, "stats", None)
        return 0 if stats is None else int(stats().live_bytes)

    def reserve(self, size: int) -> None:
        """Pin so many bytes of host memory in all, at once rather than step by step."""
        reserve = getattr(self.store, "reserve", None)
        if reserve is not None:
            reserve(size)
