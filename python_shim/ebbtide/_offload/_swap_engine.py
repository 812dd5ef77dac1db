"""What Python asks of an open swap itself (hooks/ebbtide.h, ebbtide_swap_*): its numbers, its memory, its end."""

from __future__ import annotations

import ctypes
import dataclasses
import functools

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
    timed_out_bytes: int

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


def reserve(swap: int, size: int) -> None:
    """Pin `size` bytes in all at once. Raises OutOfHostMemory."""
    _check(_library().ebbtide_swap_reserve(swap, size))


def close_swap(swap: int) -> None:
    """Wait until copies are through and give the host memory back. Idempotent."""
    _library().ebbtide_swap_close(swap)


def read_stats(swap: int) -> SwapStats:
    struct = _abi.SwapStatsStruct(struct_size=ctypes.sizeof(_abi.SwapStatsStruct))
    _check(_library().ebbtide_swap_get_stats(swap, ctypes.byref(struct)))
    return SwapStats(*(getattr(struct, field.name) for field in dataclasses.fields(SwapStats)))
