"""Saved tensors in pinned host memory: they leave behind the work that made them, and return early.

What is done for each tensor is done in C++ (hooks/torch_offload/swap_store.h): a batch of tensors
crosses at once, in either direction.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Sequence
from typing import Any

import torch

from .._activation import load_store
from .._errors import EbbtideError, one_line
from .._stats import device_index
from ._swap_engine import OutOfHostMemory, SwapStats, close_swap, read_stats, reserve

_MOST_IN_FLIGHT_BYTES = 1 << 30  # without layers to go by


@functools.cache
def _native_store() -> Any:
    load_store()
    return torch.classes.ebbtide.SwapStore


class SwapStore:
    """Takes tensors of one device over into at most `host_budget` bytes of host memory.

    What does not fit there stays on the device, split by token: the first rows of a tensor leave, the
    others are kept. Lives as long as anything in it. Not thread-safe: forward and backward threads take
    turns.
    """

    def __init__(self, device: torch.device | str | int, host_budget: int) -> None:
        self._index = device_index(device)
        native = _native_store()
        try:
            self._native = native(self._index, host_budget, _MOST_IN_FLIGHT_BYTES)
        except RuntimeError as error:
            raise EbbtideError(one_line(error).removeprefix("offload: ")) from None
        self._number = self._native.number()
        # A name of a torch class is looked up anew by each use.
        self._save_all, self._layer_ended = self._native.save_all, self._native.layer_ended
        self._held_bytes = self._native.held_bytes

    @property
    def held_bytes(self) -> int:
        """What found no room on the host and stays on the device until it is released."""
        return int(self._held_bytes())

    def save(self, tensor: torch.Tensor) -> Swapped:
        """Take over the bytes of `tensor`, of any strides. The caller drops its own reference.

        The same bytes saved again while they are on their way are stored once.
        """
        return self.save_all([tensor])[0]

    def save_all(self, tensors: Sequence[torch.Tensor]) -> list[Swapped]:
        """`save` for tensors that are needed together: they leave, return and take memory as one.

        Costs the host hardly more than one. They are on the device again, all of them, from the first
        `prefetch` or `get` of one until the last of them is released.
        """
        native, sizes, swapped = self._save_all(tensors)
        batch = itertools.repeat(_Batch(native, self._index))
        return list(map(Swapped, batch, itertools.count(), sizes, swapped))

    def layer_ended(self) -> None:
        """A layer has saved what it saves: what the layer before it saved may now leave the device.

        The next layer's work on the current stream begins when those copies have ended; the host does
        not wait.
        """
        self._layer_ended()

    def let_go(self) -> None:
        """Everything on its way out leaves the device: the current stream waits for the copies."""
        self._native.let_go()

    def reserve(self, size: int) -> None:
        """Pin host memory for `size` bytes in all, now rather than step by step.

        As far as the budget and the system grant it; what they do not grant shows in stats().
        """
        stats = self.stats()
        wanted = min(size, stats.host_budget_bytes, stats.pinned_limit_bytes)
        if wanted > stats.pinned_bytes:
            with contextlib.suppress(OutOfHostMemory):
                reserve(self._number, wanted)

    def stats(self) -> SwapStats:
        return read_stats(self._number)

    def close(self) -> None:
        """Give the host memory back. What is still saved can no longer be got. Idempotent."""
        self.let_go()
        close_swap(self._number)


class _Batch:
    """Tensors that were saved together. Held by those not yet released alone, and goes with the last:
    memory that a copy still works on is then freed behind that copy."""

    __slots__ = ("back", "index", "is_asked", "native", "stream")

    def __init__(self, native: Any, index: int) -> None:
        self.native, self.index = native, index
        self.back: list[torch.Tensor | None] = []  # all of them, once they have returned
        self.stream = 0  # on which they did
        self.is_asked = False  # there is nothing left to prefetch


class Swapped:
    """One tensor in a SwapStore: the protocol `Saved`. Released at the latest when it goes."""

    __slots__ = ("_batch", "_number", "size_bytes", "swapped_bytes")

    def __init__(self, batch: _Batch, number: int, size_bytes: int, swapped_bytes: int) -> None:
        self._batch: _Batch | None = batch
        self._number = number
        self.size_bytes = size_bytes
        self.swapped_bytes = swapped_bytes  # on the host, or on their way; the others stay on the device

    def prefetch(self) -> None:
        batch = self._batch
        if batch is not None and not batch.is_asked:
            batch.is_asked = batch.native.prefetch()

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
