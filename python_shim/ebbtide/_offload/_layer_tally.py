"""What the layers of a model did, counted."""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import os
from collections.abc import Sequence

import torch

from .. import _abi, _native
from ._length import Length
from ._native_saving import NativeStore, SavedTogether
from ._store import Saved, Store


@functools.cache
def _library() -> ctypes.CDLL:
    return _native.part(_abi.TRACE_FUNCTIONS)


@functools.cache
def _number_of(layer: str) -> int:
    """Of the layer's name in the trace; 0: none is written."""
    if not os.environ.get("EBBTIDE_TRACE"):
        return 0
    number = ctypes.c_uint32()
    _library().ebbtide_name_owner(layer.encode(errors="replace"), ctypes.byref(number))
    return number.value


@dataclasses.dataclass
class Tally:
    """Counts of one layer, over all its training calls since it was cut. Bytes are those of saved tensors."""

    name: str
    calls: int = 0
    rows: int = 0  # tokens of all calls, of all their sequences together,
    most_rows: int = 0  # and of the longest one
    pieces: int = 0  # of the last call that was cut; 0: none was
    attention_forwards: int = 0
    kept_bytes: int = 0
    swapped_bytes: int = 0
    recomputed_bytes: int = 0
    rest_bytes_per_token: float = 0.0  # beside input and attention's output; 0: not measured yet
    scores_bytes: int = 0  # the most of a call's attention that is too heavy to be saved (Note [Heavy attention])
    whole_bytes: int = 0  # of a layer that is run whole: what its own forward would save in a call
    whole_length: Length = Length()  # of the longest that was measured
    always_bytes_per_token: float = 0.0  # input, attention's output and statistics; 0: not measured yet
    shares_nodes: bool | None = None  # the graphs before and after attention with one another; None: not known yet
    whole_because: str | None = None  # why the layer is treated whole; None: it is cut
    device: int = -1  # where it was called last; -1: host memory
    is_traced: bool = True  # not of a self-check: a trace has what the program did
    _traced: tuple[int, int, int] = (0, 0, 0)  # what the trace was told of kept, swapped and recomputed

    def trace(self) -> None:
        """Tells the trace, if one is written, what became of saved tensors since the last time."""
        number = _number_of(self.name) if self.is_traced else 0
        now = (self.kept_bytes, self.swapped_bytes, self.recomputed_bytes)
        if number and now != self._traced:
            kept, swapped, recomputed = (have - had for have, had in zip(now, self._traced, strict=True))
            _library().ebbtide_trace_layer(self.device, number, kept, swapped, recomputed)
            self._traced = now

    def tell_rows(self, rows: int) -> None:
        self.rows += rows
        self.most_rows = max(self.most_rows, rows)

    def tell_always(self, size: int, tokens: int) -> None:
        self.always_bytes_per_token = max(self.always_bytes_per_token, size / tokens)

    def tell_scores(self, size: int) -> None:
        self.scores_bytes = max(self.scores_bytes, size)

    def tell_whole(self, size: int, length: Length) -> None:
        self.whole_bytes, self.whole_length = size, length

    def whole_bytes_at(self, rows: int) -> int:
        """What a call of so many tokens saves, or would."""
        return self.whole_bytes * rows // max(self.whole_length.rows, 1)

    def begin_anew(self) -> None:
        """Of a copied model's layer, which has done nothing yet."""
        self.calls = self.rows = self.most_rows = self.attention_forwards = 0
        self.kept_bytes = self.swapped_bytes = self.recomputed_bytes = 0
        self._traced = (0, 0, 0)


class TallyingStore:
    """A store that counts what goes in."""

    def __init__(self, store: Store, tally: Tally) -> None:
        self._store, self._tally = store, tally
        self.is_native = store.is_native
        if isinstance(store, NativeStore):
            self.address = store.address  # where recorders of C++ hand over

    def save(self, tensor: torch.Tensor) -> Saved:
        return self.save_all([tensor])[0]

    def save_all(self, tensors: Sequence[torch.Tensor]) -> Sequence[Saved]:
        saved = self._store.save_all(tensors)
        self._count(saved)
        return saved

    def count(self, handed: SavedTogether) -> None:
        """What a recorder of C++ handed over."""
        self._count((handed,))

    def _count(self, saved: Sequence[Saved]) -> None:
        swapped = sum(each.swapped_bytes for each in saved)
        self._tally.swapped_bytes += swapped
        self._tally.kept_bytes += sum(each.size_bytes for each in saved) - swapped

    @property
    def held_bytes(self) -> int:
        return self._store.held_bytes

    def layer_ended(self) -> None:
        self._store.layer_ended()
