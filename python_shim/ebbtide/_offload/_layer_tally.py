"""What the layers of a model did, counted."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch

from ._store import Handed, Saved, Store


@dataclasses.dataclass
class Tally:
    """Counts of one layer, over all its training calls since it was cut. Bytes are those of saved tensors."""

    name: str
    calls: int = 0
    attention_forwards: int = 0
    kept_bytes: int = 0
    swapped_bytes: int = 0
    recomputed_bytes: int = 0
    rest_bytes_per_token: float = 0.0  # beside input and attention's output; 0: not measured yet
    always_bytes_per_token: float = 0.0  # input, attention's output and statistics; 0: not measured yet
    whole_because: str | None = None  # why the layer is treated whole; None: it is cut


    def tell_always(self, size: int, tokens: int) -> None:
        self.always_bytes_per_token = max(self.always_bytes_per_token, size / tokens)


class TallyingStore:
    """A store that counts what goes in."""

    def __init__(self, store: Store, tally: Tally) -> None:
        self._store, self._tally = store, tally
        self.is_native = store.is_native

    def save(self, tensor: torch.Tensor) -> Saved:
        return self.save_all([tensor])[0]

    def save_all(self, tensors: Sequence[torch.Tensor]) -> Sequence[Saved]:
        saved = self._store.save_all(tensors)
        self._count(saved)
        return saved

    def take(self, recorder: int, landings: Sequence[int], limit: int) -> Handed | None:
        handed = self._store.take(recorder, landings, limit)
        if handed is not None:
            self._count(handed.saved)
        return handed

    def _count(self, saved: Sequence[Saved]) -> None:
        swapped = sum(each.swapped_bytes for each in saved)
        self._tally.swapped_bytes += swapped
        self._tally.kept_bytes += sum(each.size_bytes for each in saved) - swapped

    @property
    def held_bytes(self) -> int:
        return self._store.held_bytes

    def layer_ended(self) -> None:
        self._store.layer_ended()
