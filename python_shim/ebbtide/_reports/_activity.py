"""What stands in a trace beside the allocators' events: what the GPU did (CUPTI), swaps, and what layers decided.

Its records come late and in no order, each with the time when it happened; none of them is a state (Note [States] in
`_model`). Times are nanoseconds of the steady clock, as those of the states are.
"""

from __future__ import annotations

import dataclasses
import enum

import numpy as np

NO_END = np.iinfo(np.int64).max  # of what was not given back
COPY_KINDS = {1: "host to device", 2: "device to host", 8: "device to device", 9: "host to host", 10: "peer to peer"}
NO_LIBRARY = "library not known"
NO_LAYER = "no layer"


class WorkKind(enum.IntEnum):
    KERNEL = 0
    COPY = 1
    MEMSET = 2


@dataclasses.dataclass
class Work:
    """What streams did, in order of begin. Arrays of equal length."""

    kind: np.ndarray  # WorkKind
    begin: np.ndarray
    length: np.ndarray
    size: np.ndarray  # bytes of copies and memsets
    stream: np.ndarray  # CUPTI's number
    name: np.ndarray  # index in Activity.names

    def __len__(self) -> int:
        return len(self.begin)


@dataclasses.dataclass
class Foreign:
    """Device memory that was taken from CUDA, and not by torch's allocator."""

    address: np.ndarray
    size: np.ndarray
    begin: np.ndarray
    end: np.ndarray
    name: np.ndarray  # index in Activity.names: the library that asked


@dataclasses.dataclass
class Swaps:
    """Tickets: bytes that left for the host, in the order in which they did."""

    ticket: np.ndarray
    size: np.ndarray
    out: np.ndarray  # when it was queued
    release: np.ndarray  # when its host memory was free; NO_END: not yet
    layer: np.ndarray  # index in Activity.names
    back: np.ndarray  # bytes that were asked back


@dataclasses.dataclass
class Copies:
    """Copies of swaps that were timed, by the device's clock."""

    ticket: np.ndarray
    begin: np.ndarray
    length: np.ndarray
    exposed: np.ndarray  # of it, the compute stream stood still
    is_in: np.ndarray


@dataclasses.dataclass(frozen=True)
class Decided:
    """What a layer's backward needs, over all its calls, and what became of it. Bytes."""

    layer: str
    kept: int = 0
    swapped: int = 0
    recomputed: int = 0


@dataclasses.dataclass
class Activity:
    """Everything of one device."""

    names: list[str]
    work: Work
    foreign: Foreign
    swaps: Swaps
    copies: Copies
    pinned_times: np.ndarray  # from when on ...
    pinned: np.ndarray  # ... so many bytes of host memory are pinned for swaps
    cuda_pinned_times: np.ndarray  # the same of all that is pinned through CUDA in this process, as CUPTI tells
    cuda_pinned: np.ndarray
    decisions: list[Decided]
    is_gpu_recorded: bool  # CUPTI was on
    lost: int  # of CUPTI's records

    @property
    def has_swaps(self) -> bool:
        return bool(len(self.swaps.ticket) or len(self.pinned) or self.decisions)


@dataclasses.dataclass(frozen=True)
class StreamShare:
    """One stream: how long something ran on it, and what."""

    stream: int
    busy_ns: int
    kernels: int
    copies: int
    copied_bytes: int


@dataclasses.dataclass(frozen=True)
class WorkShare:
    """Kernels, copies or memsets of one name."""

    name: str
    count: int
    ns: int
    size: int


@dataclasses.dataclass(frozen=True)
class Overlap:
    """Of the time between the first begin and the last end, on all streams together."""

    span_ns: int
    kernel_ns: int  # a kernel ran
    copy_ns: int  # a copy between host and device ran
    both_ns: int

    @property
    def idle_ns(self) -> int:
        return self.span_ns - (self.kernel_ns + self.copy_ns - self.both_ns)


@dataclasses.dataclass(frozen=True)
class SwapTotals:
    """Of all swaps of a device. Times as far as copies were timed."""

    out_bytes: int
    in_bytes: int
    tickets: int
    copying_ns: int
    exposed_ns: int
    peak_host_bytes: int
    peak_pinned_bytes: int


@dataclasses.dataclass(frozen=True)
class LayerShare:
    """What one layer's tensors did: its decisions, and its swaps."""

    layer: str
    kept: int
    swapped: int
    recomputed: int
    tickets: int
    copying_ns: int
    exposed_ns: int


def _merged(begin: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The union of intervals, as intervals that do not touch."""
    if not len(begin):
        return begin, end
    order = np.argsort(begin, kind="stable")
    begin, reach = begin[order], np.maximum.accumulate(end[order])
    heads = np.flatnonzero(np.concatenate([[True], begin[1:] > reach[:-1]]))
    return begin[heads], reach[np.append(heads[1:], len(begin)) - 1]


def _length(intervals: tuple[np.ndarray, np.ndarray]) -> int:
    return int((intervals[1] - intervals[0]).sum())


def streams(work: Work) -> list[StreamShare]:
    """The busiest first."""
    shares = []
    for stream in np.unique(work.stream):
        own = work.stream == stream
        is_copy = own & (work.kind == WorkKind.COPY)
        busy = _length(_merged(work.begin[own], work.begin[own] + work.length[own]))
        kernels = int((own & (work.kind == WorkKind.KERNEL)).sum())
        shares.append(StreamShare(int(stream), busy, kernels, int(is_copy.sum()), int(work.size[is_copy].sum())))
    return sorted(shares, key=lambda share: (-share.busy_ns, share.stream))


def works(activity: Activity) -> list[WorkShare]:
    """By name, what took longest first."""
    work = activity.work
    count = np.bincount(work.name, minlength=len(activity.names))
    ns, size = np.zeros(len(activity.names), np.int64), np.zeros(len(activity.names), np.int64)
    np.add.at(ns, work.name, work.length)
    np.add.at(size, work.name, work.size)
    shares = [WorkShare(activity.names[i], int(count[i]), int(ns[i]), int(size[i])) for i in np.flatnonzero(count)]
    return sorted(shares, key=lambda share: (-share.ns, share.name))


def overlap(activity: Activity) -> Overlap:
    work = activity.work
    if not len(work):
        return Overlap(0, 0, 0, 0)
    end = work.begin + work.length
    over_link = {i for i, name in enumerate(activity.names) if name in (copy_name(1), copy_name(2))}
    is_kernel = work.kind == WorkKind.KERNEL
    is_copy = (work.kind == WorkKind.COPY) & np.isin(work.name, list(over_link))
    kernels, copies = _merged(work.begin[is_kernel], end[is_kernel]), _merged(work.begin[is_copy], end[is_copy])
    either = _merged(np.concatenate([kernels[0], copies[0]]), np.concatenate([kernels[1], copies[1]]))
    both = _length(kernels) + _length(copies) - _length(either)
    return Overlap(int(end.max() - work.begin.min()), _length(kernels), _length(copies), both)


def foreign_at(activity: Activity, time_ns: int) -> list[WorkShare]:
    """Device memory that libraries hold, by library, the largest first."""
    foreign = activity.foreign
    alive = np.flatnonzero((foreign.begin <= time_ns) & (time_ns < foreign.end))
    sizes = np.zeros(len(activity.names), np.int64)
    np.add.at(sizes, foreign.name[alive], foreign.size[alive])
    counts = np.bincount(foreign.name[alive], minlength=len(activity.names))
    shares = [WorkShare(activity.names[i], int(counts[i]), 0, int(sizes[i])) for i in np.flatnonzero(counts)]
    return sorted(shares, key=lambda share: (-share.size, share.name))


def host_curve(swaps: Swaps) -> tuple[np.ndarray, np.ndarray]:
    """Times, and the bytes of tickets that are on the host from then on."""
    ended = swaps.release < NO_END
    times = np.concatenate([swaps.out, swaps.release[ended]])
    changes = np.concatenate([swaps.size, -swaps.size[ended]])
    # Of equal times, what goes before what comes.
    order = np.lexsort((changes, times))
    return times[order], np.cumsum(changes[order])


def has_own_clock(activity: Activity) -> bool:
    """Whether a copy began before its swap was queued: then copies have times of their own, as on a simulated GPU."""
    queued = dict(zip(activity.swaps.ticket.tolist(), activity.swaps.out.tolist(), strict=True))
    copies = activity.copies
    return any(begin < queued.get(ticket, begin) for ticket, begin in zip(copies.ticket.tolist(), copies.begin.tolist(), strict=True))


def swap_totals(activity: Activity) -> SwapTotals:
    swaps, copies = activity.swaps, activity.copies
    return SwapTotals(
        int(swaps.size.sum()),
        int(swaps.back.sum()),
        len(swaps.ticket),
        int(copies.length.sum()),
        int(copies.exposed.sum()),
        int(host_curve(swaps)[1].max(initial=0)),
        int(activity.pinned.max(initial=0)),
    )


def layers(activity: Activity) -> list[LayerShare]:
    """In order of their names, numbers in them as numbers; what swapped without a decision comes by its owner."""
    decided = {one.layer: one for one in activity.decisions}
    swaps, copies = activity.swaps, activity.copies
    place = {int(ticket): i for i, ticket in enumerate(swaps.ticket.tolist())}
    names = [_layer_of(activity.names[i], decided) for i in swaps.layer.tolist()]
    tickets: dict[str, int] = {}
    sizes: dict[str, int] = {}
    copying: dict[str, int] = {}
    exposed: dict[str, int] = {}
    for name, size in zip(names, swaps.size.tolist(), strict=True):
        tickets[name] = tickets.get(name, 0) + 1
        sizes[name] = sizes.get(name, 0) + size
    for ticket, length, stood in zip(copies.ticket.tolist(), copies.length.tolist(), copies.exposed.tolist(), strict=True):
        name = names[place[ticket]] if ticket in place else NO_LAYER
        copying[name] = copying.get(name, 0) + length
        exposed[name] = exposed.get(name, 0) + stood
    found = []
    for name in {*decided, *tickets, *copying}:
        known = decided.get(name, Decided(name, swapped=sizes.get(name, 0)))
        found.append(
            LayerShare(
                name, known.kept, known.swapped, known.recomputed, tickets.get(name, 0), copying.get(name, 0), exposed.get(name, 0)
            )
        )
    return sorted(found, key=lambda share: [(int(part) if part.isdigit() else -1, part) for part in share.layer.split(".")])


def _layer_of(owner: str, decided: dict[str, Decided]) -> str:
    """The layer that an owner, a module's path, lies in."""
    parts = owner.split(".")
    for length in range(len(parts), 0, -1):
        if (name := ".".join(parts[:length])) in decided:
            return name
    return owner


def copy_name(kind: int) -> str:
    return f"copy {COPY_KINDS.get(kind, f'of kind {kind}')}"
