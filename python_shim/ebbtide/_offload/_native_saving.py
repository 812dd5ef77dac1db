"""Saving in C++: stores, recorders and landings of hooks/torch_offload, as Python holds them.

What is done for each tensor that autograd saves is done in C++, without the interpreter: hooks, telling
tensors apart, taking over, and giving back (hooks/torch_offload/recorder.h, saved_hooks.h). What crosses
is a batch at a time. What is called for each part of a piece is the module `_saving`
(python_module.cpp), because a method of a torch class costs ten times as much.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Sequence
from types import ModuleType
from typing import Any, Protocol

import torch

from .. import _native
from .._activation import load_store
from ._store import Handed, Saved, Store


@functools.cache
def saving() -> ModuleType:
    """The module `_saving`. EbbtideError if the library was built for another torch."""
    load_store()
    return _native.saving()


@functools.cache
def native_class(name: str) -> Any:
    """A class of libebbtide_torch_store. EbbtideError if it was built for another torch."""
    saving()
    return getattr(torch.classes.ebbtide, name)


class Externals(frozenset[int]):
    """Storages that live on elsewhere: parameters, buffers, a layer's arguments."""

    @functools.cached_property
    def native(self) -> Any:
        return saving().storages(self)


class NativeRecorder(Protocol):
    """See _layer_saving.Recorder. A type of C++: hooks() is to be entered once, and left before anything
    else is asked."""

    def hooks(self) -> Any: ...

    def measure(self, elsewhere: Iterable[int]) -> int: ...

    def hand_over(
        self, store: Store, landings: Iterable[NativeLanding], limit: float
    ) -> SavedTogether | None:
        """Needs a NativeStore, or what has its `address` and `count`."""


class SavedTogether(Saved, Handed, Protocol):
    """All that one recorder handed over, as one. False if nothing was left to save. The graph that saved it
    asks for it, and nobody else."""


class NativeLanding:
    """See _layer_saving.Landing."""

    __slots__ = ("_native", "address", "drop", "put")

    def __init__(self, tensor: torch.Tensor) -> None:
        self._native = native_class("Landing")(tensor)
        self.address = self._native.address()
        # A name of a torch class is looked up anew by each use.
        self.put, self.drop = self._native.put, self._native.drop


class NativeStore:
    """A store of C++: a torch class with save_all and address. Not thread-safe."""

    is_native = True
    count = None  # to be told by a recorder of what it handed over

    def __init__(self, native: Any, index: int) -> None:
        """`index`: the device's, whose current stream counts; -1 for none."""
        self._native, self._index = native, index
        # A name of a torch class is looked up anew by each use.
        self._save_all, self._held_bytes = native.save_all, native.held_bytes
        self.address = native.address()

    @property
    def held_bytes(self) -> int:
        """What stays on the device until it is released."""
        return int(self._held_bytes())

    def save(self, tensor: torch.Tensor) -> NativeSaved:
        """Take over the bytes of `tensor`, of any strides. The caller drops its own reference."""
        return self.save_all([tensor])[0]

    def save_all(self, tensors: Sequence[torch.Tensor]) -> list[NativeSaved]:
        """`save` for tensors that are needed together: they leave, return and take memory as one.

        Costs the host hardly more than one. They are on the device again, all of them, from the first
        `prefetch` or `get` of one until the last of them is released.
        """
        native, sizes, swapped = self._save_all(tensors)
        batch = itertools.repeat(_Batch(native, self._index))
        return list(map(NativeSaved, batch, itertools.count(), sizes, swapped))


class NativeKeepStore(NativeStore):
    """Saved tensors stay where they are."""

    def __init__(self) -> None:
        super().__init__(native_class("KeepStore")(), -1)

    def layer_ended(self) -> None:
        return


class _Batch:
    """Tensors that were saved together. Held by those not yet released alone, and goes with the last:
    memory that a copy still works on is then freed behind that copy."""

    __slots__ = ("back", "index", "is_asked", "native", "stream")

    def __init__(self, native: Any, index: int) -> None:
        self.native, self.index = native, index
        self.back: list[torch.Tensor | None] = []  # all of them, once they have returned
        self.stream = 0  # on which they did
        self.is_asked = False  # there is nothing left to prefetch


class NativeSaved:
    """One tensor in a store of C++: the protocol `Saved`. Released at the latest when it goes."""

    __slots__ = ("_batch", "_number", "size_bytes", "swapped_bytes")

    def __init__(self, batch: _Batch, number: int, size_bytes: int, swapped_bytes: int) -> None:
        self._batch: _Batch | None = batch
        self._number = number
        self.size_bytes = size_bytes
        self.swapped_bytes = swapped_bytes  # on the host, or on their way; the others stay on the device

    def prefetch(self) -> None:
        batch = self._batch
        if batch is not None and not batch.is_asked:
            batch.is_asked = saving().prefetch(batch.native.address())

    def get(self) -> torch.Tensor:
        batch = self._batch
        if batch is None:
            raise RuntimeError("a saved tensor was asked for after its release")
        stream = 0 if batch.index < 0 else torch._C._cuda_getCurrentRawStream(batch.index)
        if not batch.back:
            batch.back, batch.stream = batch.native.get_all(), stream
        found = batch.back[self._number] if batch.back and stream == batch.stream else None
        return batch.native.get(self._number) if found is None else found  # type: ignore[no-any-return]

    def release(self) -> None:
        self._batch = None
