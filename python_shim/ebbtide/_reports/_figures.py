"""The figures of every view, computed from a recording's blocks and segments. Sizes in bytes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from ._activity import WorkShare, foreign_at
from ._model import Blocks, Category, Device, Phase, Segments
from ._stacks import of_program


@dataclasses.dataclass(frozen=True)
class Split:
    """Where the bytes are in one state; the parts add up to `device_used`, or without it to `reserved`.

    None: the recording does not tell. `unsplit`: free bytes of which it does not tell whether they are stranded.
    """

    requested: int
    rounding: int  # the allocator's: to its granule, and rests too small to cut off
    waiting: int  # freed, but another stream may still use it
    stranded: int | None  # free between live blocks of one segment
    cached: int | None  # in segments where nothing lives: given to any request that fits, or back to the device
    unsplit: int | None
    not_torch: int | None
    reserved: int | None
    device_used: int | None
    libraries: int | None = None  # of what is not torch's, what CUPTI saw taken in this process

    @property
    def parts(self) -> list[tuple[str, int]]:
        """Those that are known, by the names that every view uses."""
        named = [
            ("requested", self.requested),
            ("rounding", self.rounding),
            ("awaiting streams", self.waiting),
            ("stranded", self.stranded),
            ("cached and fitting", self.cached),
            ("free", self.unsplit),
        ]
        if self.libraries is None or self.not_torch is None:
            named.append(("not torch", self.not_torch))
        else:
            named.append(("not torch: libraries", self.libraries))
            named.append(("not torch: contexts and others", self.not_torch - self.libraries))
        return [(name, size) for name, size in named if size is not None]


@dataclasses.dataclass(frozen=True)
class Share:
    """What one owner, or one category, holds."""

    name: str
    size: int
    blocks: int


def _curve(sizes: np.ndarray, begins: np.ndarray, ends: np.ndarray, states: int) -> np.ndarray:
    """Of each state, the sum of what is there in [begin, end)."""
    changes = np.zeros(states + 1, np.int64)
    np.add.at(changes, begins, sizes)
    np.subtract.at(changes, ends, sizes)
    return np.cumsum(changes[:states])


def live_curve(device: Device) -> np.ndarray:
    """Requested bytes that are alive, in each state."""
    blocks = device.blocks
    return _curve(blocks.size, blocks.birth, blocks.death, device.states)


def reserved_curve(device: Device) -> np.ndarray | None:
    """What the allocator holds from the device; None where it is not told."""
    if device.segments_are_whole:
        segments = device.segments
        return _curve(segments.size, segments.birth, segments.death, device.states)
    return None if device.reserved_steps is None else device.reserved_steps.curve(device.states)


def category_curve(device: Device, category: Category) -> np.ndarray:
    blocks = device.blocks
    of = blocks.category == category
    return _curve(blocks.size[of], blocks.birth[of], blocks.death[of], device.states)


def peak_state(device: Device) -> int:
    """The first state in which most requested bytes are alive."""
    return int(np.argmax(live_curve(device)))


def peak_reserved(device: Device) -> int | None:
    curve = reserved_curve(device)
    return None if curve is None else int(curve.max())


def alive_at(blocks: Blocks | Segments, state: int) -> np.ndarray:
    """The indices of what is alive."""
    return np.flatnonzero((blocks.birth <= state) & (state < blocks.death))


def split_at(device: Device, state: int) -> Split:
    blocks = device.blocks
    alive = alive_at(blocks, state)
    requested = int(blocks.size[alive].sum())
    rounding = int(blocks.held[alive].sum()) - requested
    waits = (blocks.death <= state) & (state < blocks.release)
    waiting = int(blocks.held[waits].sum())
    curve = reserved_curve(device)
    known_from = 0 if device.reserved_steps is None else int(device.reserved_steps.states[0])
    reserved = int(curve[state]) if curve is not None and state >= known_from else None
    stranded = cached = unsplit = None
    if reserved is not None:
        free = reserved - requested - rounding - waiting
        if device.segments_are_whole:
            cached = _in_empty_segments(device, state)
            stranded = free - cached
        else:
            unsplit = free
    used = device.device_used.at(state) if device.device_used is not None else None
    not_torch = used - reserved if used is not None and reserved is not None else None
    libraries = None if not_torch is None else _libraries_at(device, state, not_torch)
    return Split(requested, rounding, waiting, stranded, cached, unsplit, not_torch, reserved, used, libraries)


def _libraries_at(device: Device, state: int, not_torch: int) -> int | None:
    """None where CUPTI was off."""
    if device.activity is None or not device.activity.is_gpu_recorded:
        return None
    return min(sum(share.size for share in libraries_at(device, state)), max(not_torch, 0))


def libraries_at(device: Device, state: int) -> list[WorkShare]:
    """Device memory that libraries took from CUDA, by library, the largest first; as CUPTI tells. As of the moment when
    the device's count in that state was read, so that it is part of that count."""
    counted = None if device.device_used is None else device.device_used.since(state)
    if device.activity is None:
        return []
    return foreign_at(device.activity, int(device.times_ns[state if counted is None else counted]))


def stretches_at(device: Device, state: int) -> tuple[np.ndarray, np.ndarray]:
    """Begins and sizes of the held ranges, by address; neighbours that grow together are one."""
    segments = device.segments
    alive = alive_at(segments, state)
    order = alive[np.argsort(segments.address[alive], kind="stable")]
    begins, sizes = segments.address[order], segments.size[order]
    grows = segments.grows[order]
    joins = np.zeros(len(order), bool)
    joins[1:] = grows[1:] & grows[:-1] & (begins[:-1] + sizes[:-1].astype(np.uint64) == begins[1:])
    heads = np.flatnonzero(~joins)
    return begins[heads], np.add.reduceat(sizes, heads) if len(heads) else sizes


def holdings_at(device: Device, state: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The held ranges, and the bytes of blocks in each: begins, sizes, taken."""
    begins, sizes = stretches_at(device, state)
    blocks = device.blocks
    there = np.flatnonzero((blocks.birth <= state) & (state < blocks.release))
    taken = np.zeros(len(begins), np.int64)
    if len(begins):
        of = np.searchsorted(begins, blocks.address[there], side="right") - 1
        np.add.at(taken, of[of >= 0], blocks.held[there][of >= 0])
    return begins, sizes, taken


def _in_empty_segments(device: Device, state: int) -> int:
    _, sizes, taken = holdings_at(device, state)
    return int(sizes[taken == 0].sum())


def owners_at(device: Device, state: int) -> list[Share]:
    """The largest first; of equals, by name."""
    alive = alive_at(device.blocks, state)
    owner = device.blocks.owner[alive]
    sizes = np.zeros(len(device.owners), np.int64)
    np.add.at(sizes, owner, device.blocks.size[alive])
    counts = np.bincount(owner, minlength=len(device.owners))
    shares = [Share(device.owners[i], int(sizes[i]), int(counts[i])) for i in np.flatnonzero(counts)]
    return sorted(shares, key=lambda share: (-share.size, share.name))


@dataclasses.dataclass(frozen=True)
class StackShare:
    """What was allocated from one stack, for one owner, in one phase."""

    owner: str
    phase: str
    size: int
    blocks: int
    frames: tuple[str, ...]  # the innermost first


def stacks_at(device: Device, state: int) -> list[StackShare]:
    """The largest first; of equals, the older. Without what has no stack."""
    return _stack_shares(device, state, lambda frames: frames)


def program_stacks_at(device: Device, state: int, most: int) -> list[StackShare]:
    """The same for a reader: of each stack at most so many lines of the program, and what shares them as one."""
    return _stack_shares(device, state, lambda frames: tuple(of_program(frames, most)))


def _stack_shares(
    device: Device, state: int, shown: Callable[[tuple[str, ...]], tuple[str, ...]]
) -> list[StackShare]:
    blocks = device.blocks
    alive = alive_at(blocks, state)
    alive = alive[blocks.stack[alive] > 0]
    frames = {stack: shown(device.frames_of(stack)) for stack in np.unique(blocks.stack[alive]).tolist()}
    held: dict[tuple[int, int, tuple[str, ...]], list[int]] = {}
    columns = (blocks.owner[alive], blocks.phase[alive], blocks.stack[alive], blocks.size[alive])
    for owner, phase, stack, size in zip(*(column.tolist() for column in columns), strict=True):
        sums = held.setdefault((owner, phase, frames[stack]), [0, 0])
        sums[0] += size
        sums[1] += 1
    shares = [
        StackShare(device.owners[owner], Phase(phase).name.lower(), size, count, lines)
        for (owner, phase, lines), (size, count) in held.items()
    ]
    return sorted(shares, key=lambda share: -share.size)


def categories_at(device: Device, state: int) -> list[Share]:
    """In order of Category, those that hold something."""
    alive = alive_at(device.blocks, state)
    shares = []
    for category in Category:
        of = alive[device.blocks.category[alive] == category]
        if len(of):
            shares.append(Share(category.text, int(device.blocks.size[of].sum()), len(of)))
    return shares


def largest_at(device: Device, state: int, most: int) -> np.ndarray:
    """The indices of the largest live blocks; of equals, the older first."""
    alive = alive_at(device.blocks, state)
    return alive[np.argsort(-device.blocks.size[alive], kind="stable")][:most]


@dataclasses.dataclass(frozen=True)
class Timeline:
    """Columns of a picture over time. A column shows the state in which most is alive among those it stands for."""

    states: np.ndarray
    live: np.ndarray
    reserved: np.ndarray | None
    device_used: np.ndarray | None
    categories: dict[Category, np.ndarray]


def timeline(device: Device, columns: int) -> Timeline:
    live = live_curve(device)
    edges = np.unique(np.linspace(0, device.states, min(columns, device.states) + 1).astype(np.int64))
    shown = np.array([begin + int(np.argmax(live[begin:end])) for begin, end in zip(edges[:-1], edges[1:], strict=True)])
    reserved = reserved_curve(device)
    used = None if device.device_used is None else device.device_used.curve(device.states)
    present = [category for category in Category if (device.blocks.category == category).any()]
    return Timeline(
        shown,
        live[shown],
        None if reserved is None else reserved[shown],
        None if used is None else used[shown],
        {category: category_curve(device, category)[shown] for category in present},
    )
