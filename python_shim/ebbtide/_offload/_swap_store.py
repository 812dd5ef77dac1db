"""Saved tensors in pinned host memory: they leave behind the work that made them, and return early.

What is done for each tensor is done in C++ (hooks/torch_offload/swap_store.h).
"""

from __future__ import annotations

import contextlib

import torch

from .._errors import EbbtideError, one_line
from .._stats import device_index
from ._native_saving import NativeStore, native_class
from ._swap_engine import OutOfHostMemory, SwapStats, close_swap, read_stats, reserve

_MOST_IN_FLIGHT_BYTES = 1 << 30  # without layers to go by


class SwapStore(NativeStore):
    """Takes tensors of one device over into at most `host_budget` bytes of host memory.

    What does not fit there stays on the device, split by token: the first rows of a tensor leave, the
    others are kept. The same bytes saved again while they are on their way are stored once. Lives as
    long as anything in it. Not thread-safe: forward and backward threads take turns.
    """

    def __init__(self, device: torch.device | str | int, host_budget: int) -> None:
        index = device_index(device)
        make = native_class("SwapStore")
        try:
            native = make(index, host_budget, _MOST_IN_FLIGHT_BYTES)
        except RuntimeError as error:
            raise EbbtideError(one_line(error).removeprefix("offload: ")) from None
        super().__init__(native, index)
        self._number = native.number()
        self._layer_ended = native.layer_ended

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
