"""The native swap engine in Python: hooks/ebbtide.h, ebbtide_swap_*, as a class and a dataclass."""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import weakref
from collections.abc import Sequence

from .. import _abi, _native
from .._errors import EbbtideError


ALIGNMENT = 512  # where the sources of one ticket begin in it


class OutOfHostMemory(EbbtideError):
    """The host budget, or what the system grants of it, does not hold the bytes."""


@dataclasses.dataclass(frozen=True)
class SwapStats:
    """One swap's numbers; hooks/ebbtide.h, ebbtide_swap_stats, says what each means."""

    device: int
    swapped_out_bytes: int
    swapped_in_bytes: int
    copies_out: int
    copies_in: int
    live_bytes: int
    peak_live_bytes: int
    pinned_bytes: int
    pinned_limit_bytes: int
    host_budget_bytes: int
    pinnings: int
    refusals: int
    rounds: int
    planned_tickets: int
    unplanned_tickets: int
    plan_height_bytes: int
    plan_lower_bound_bytes: int
    copying_out_ns: int
    copying_in_ns: int
    exposed_out_ns: int
    exposed_in_ns: int
    unmeasured_copies: int
    host_waits: int

    @property
    def hidden_ns(self) -> int:
        """Time of copies during which the compute stream worked on."""
        return self.copying_out_ns + self.copying_in_ns - self.exposed_ns

    @property
    def exposed_ns(self) -> int:
        """Time of copies that the compute stream stood still for."""
        return self.exposed_out_ns + self.exposed_in_ns


@functools.cache
def _library() -> ctypes.CDLL:
    return _native.part(_abi.SWAP_FUNCTIONS)


def _check(status: int) -> None:
    if status == _abi.Status.OUT_OF_HOST_MEMORY:
        raise OutOfHostMemory(_native.last_error())
    _native.check(status)


class SwapEngine:
    """Copies between a device (-1: host tensors) and pinned host memory of at most `host_budget` bytes.

    Thread-safe. Raises EbbtideError for what the engine refuses. Addresses and streams are plain
    numbers; who owns the memory behind them keeps it alive until the copy was awaited.
    """

    def __init__(self, device: int, host_budget: int) -> None:
        self._native = _library()
        number = ctypes.c_uint64()
        _check(self._native.ebbtide_swap_open(device, host_budget, ctypes.byref(number)))
        self._number = number.value
        self._close = weakref.finalize(self, self._native.ebbtide_swap_close, number.value)

    def close(self) -> None:
        """Wait until copies are through and give the host memory back. Idempotent."""
        self._close()

    def reserve(self, size: int) -> None:
        """Pin `size` bytes in all at once. Raises OutOfHostMemory."""
        _check(self._native.ebbtide_swap_reserve(self._number, size))

    def room(self, wanted: int) -> int:
        """How much of `wanted` bytes one swap_out could take now."""
        size = ctypes.c_int64()
        _check(self._native.ebbtide_swap_room(self._number, wanted, ctypes.byref(size)))
        return size.value

    def swap_out(self, sources: Sequence[tuple[int, int]], stream: int) -> int:
        """Queue copies of (address, bytes) to the host; returns their one ticket. Raises OutOfHostMemory."""
        ticket = ctypes.c_uint64()
        native = (_abi.SwapSourceStruct * len(sources))(*sources)
        _check(
            self._native.ebbtide_swap_out(
                self._number, native, len(sources), stream, ctypes.byref(ticket)
            )
        )
        return ticket.value

    def await_out(self, ticket: int, stream: int) -> None:
        _check(self._native.ebbtide_swap_await_out(self._number, ticket, stream))

    def swap_in(self, ticket: int, address: int, size: int, stream: int, start: int = 0) -> None:
        """Queue a copy of the ticket's bytes from `start` to `address`."""
        _check(self._native.ebbtide_swap_in(self._number, ticket, start, address, size, stream))

    def await_in(self, ticket: int, stream: int) -> None:
        _check(self._native.ebbtide_swap_await_in(self._number, ticket, stream))

    def release(self, ticket: int, stream: int, *, out: bool, landed: bool) -> None:
        """Forget a ticket, with its copy out or in awaited before if it still holds memory.

        Never raises: it runs where objects end. Of a closed engine, whose copies are all through, and in
        a forked child there is nothing to forget.
        """
        if out:
            self._native.ebbtide_swap_await_out(self._number, ticket, stream)
        if landed:
            self._native.ebbtide_swap_await_in(self._number, ticket, stream)
        self._native.ebbtide_swap_release(self._number, ticket)

    def stats(self) -> SwapStats:
        struct = _abi.SwapStatsStruct(struct_size=ctypes.sizeof(_abi.SwapStatsStruct))
        _check(self._native.ebbtide_swap_get_stats(self._number, ctypes.byref(struct)))
        return SwapStats(*(getattr(struct, field.name) for field in dataclasses.fields(SwapStats)))
