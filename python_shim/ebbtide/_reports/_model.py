"""What a recording says, whoever wrote it: blocks that lived, ranges that were held, marks.

Note [States]
Time is counted in states: state 0 is before the first event of the device, state i after its i-th. A block is
live in the states [birth, death) and keeps its bytes in [birth, release): between death and release other streams
may still use it. What is alive at the end has death = release = number of states. A figure "at" a state is
therefore a sum over all blocks with birth <= state < death, which is how the tests compute each of them again.
"""

from __future__ import annotations

import bisect
import dataclasses
import enum
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._activity import Activity

NEW_PLAN = "new plan"  # a mark's name
NO_STACK = "no stack recorded"  # the owner of what nobody is known for
GRANULE = 512  # bytes: torch rounds to it, and Ebbtide's arena aligns to it
_MOST_BYTES = 1 << 48  # of one block; more is a damaged file
_MOST_SUM = 1 << 62


class Phase(enum.IntEnum):
    """What the program was doing when it allocated."""

    UNKNOWN = 0
    SETUP = 1  # before the first forward
    FORWARD = 2
    BACKWARD = 3
    OPTIMIZER = 4


class Category(enum.IntEnum):
    """What a block is for, as far as its phase and its life tell: see `_categories`."""

    PARAMETERS = 0
    GRADIENTS = 1
    OPTIMIZER_STATE = 2
    ACTIVATIONS = 3
    WORKSPACES = 4
    FROM_BEFORE = 5
    UNKNOWN = 6

    @property
    def text(self) -> str:
        return "from before the recording" if self is Category.FROM_BEFORE else self.name.lower().replace("_", " ")


@dataclasses.dataclass
class Blocks:
    """One row for each block, in order of birth. Arrays of equal length."""

    address: np.ndarray
    size: np.ndarray  # bytes as requested
    held: np.ndarray  # bytes as the allocator rounds them, >= size
    birth: np.ndarray  # states, see Note [States]
    death: np.ndarray
    release: np.ndarray
    stream: np.ndarray
    owner: np.ndarray  # index in Device.owners
    phase: np.ndarray
    category: np.ndarray
    placement: np.ndarray  # as in allocator/base/event.h; 0 where nothing is planned
    stack: np.ndarray  # number of it, see Device.frames_of; 0: not known

    def __len__(self) -> int:
        return len(self.address)

    @classmethod
    def of_rows(cls, rows: list[tuple[int, ...]]) -> Blocks:
        """From tuples of address, size, held, birth, death, release, stream, owner, phase, stack."""
        columns = np.array(sorted(rows, key=lambda row: row[3]), dtype=object).reshape(-1, 10).T
        kinds = (np.uint64, *[np.int64] * 5, np.uint64, np.int32, np.int8, np.int32)
        *given, stack = [column.astype(kind) for column, kind in zip(columns, kinds, strict=True)]
        empty = np.zeros(len(rows), np.int8)
        return cls(*given, empty + np.int8(Category.UNKNOWN), empty, stack)


@dataclasses.dataclass
class Segments:
    """Ranges held from the device, one row for each, in states [birth, death)."""

    address: np.ndarray
    size: np.ndarray
    birth: np.ndarray
    death: np.ndarray
    grows: np.ndarray  # whether it is one with its neighbours (expandable segments, an arena)
    stream: np.ndarray

    def __len__(self) -> int:
        return len(self.address)

    @classmethod
    def of_rows(cls, rows: list[tuple[int, int, int, int, bool, int]]) -> Segments:
        columns = np.array(sorted(rows), dtype=object).reshape(-1, 6).T
        kinds = (np.uint64, np.int64, np.int64, np.int64, np.bool_, np.uint64)
        return cls(*[column.astype(kind) for column, kind in zip(columns, kinds, strict=True)])


@dataclasses.dataclass
class Steps:
    """A value that holds from a state on, until the next one."""

    states: np.ndarray
    values: np.ndarray

    def at(self, state: int) -> int | None:
        """None before the first value."""
        index = int(np.searchsorted(self.states, state, side="right")) - 1
        return int(self.values[index]) if index >= 0 else None

    def since(self, state: int) -> int | None:
        """From which state on the value holds that holds in this one."""
        index = int(np.searchsorted(self.states, state, side="right")) - 1
        return int(self.states[index]) if index >= 0 else None

    def curve(self, states: int) -> np.ndarray:
        """Of all states; 0 before the first value."""
        changes = np.searchsorted(self.states, np.arange(states), side="right")
        return np.concatenate([[0], self.values])[changes]


@dataclasses.dataclass(frozen=True)
class Mark:
    state: int
    name: str


@dataclasses.dataclass(frozen=True)
class Failure:
    """An allocation that the device had no memory for."""

    state: int
    asked: int
    device_free: int | None
    owner: str
    stream: int = 0
    stack: int = 0


def no_frames(_: int) -> tuple[str, ...]:
    return ()


@dataclasses.dataclass
class Device:
    """Everything of one device. `reserved` and `device_used` are None where the recording does not say."""

    index: int
    states: int
    times_ns: np.ndarray  # of each state, never falling; all 0 where there are no times
    blocks: Blocks
    segments: Segments
    segments_are_whole: bool  # whether they are all that the allocator held
    owners: list[str]
    marks: list[Mark] = dataclasses.field(default_factory=list)
    reserved_steps: Steps | None = None
    device_used: Steps | None = None  # the device's own count, whoever took the bytes
    device_total: int | None = None
    failures: list[Failure] = dataclasses.field(default_factory=list)
    end_is_exact: bool = False  # whether `held` of what lives at the end is the allocator's own number
    notes: list[str] = dataclasses.field(default_factory=list)
    activity: Activity | None = None  # what GPU and swaps did; only our traces tell
    frames_of: Callable[[int], tuple[str, ...]] = no_frames  # of a stack's number, the innermost first: "file:line name"

    @property
    def name(self) -> str:
        return "cpu" if self.index < 0 else f"cuda:{self.index}"

    @property
    def is_served(self) -> bool:
        """Whether a plan came into force while it was recorded."""
        return any(mark.name == NEW_PLAN for mark in self.marks)

    @property
    def seconds(self) -> float:
        return float(self.times_ns[-1] - self.times_ns[0]) / 1e9


@dataclasses.dataclass
class Recording:
    """A file that was read. `damage` says in words why it is not complete; empty if it is."""

    source: str
    kind: str  # "Ebbtide trace", "PyTorch snapshot", "RMM log"
    devices: list[Device]
    damage: str = ""
    lost_events: int = 0
    events: int = 0


def check_bytes(size: object) -> int:
    """A size that a device can have, or ValueError."""
    if type(size) is not int or not 0 <= size < _MOST_BYTES:
        raise ValueError(f"a size of {str(size)[:40]} is not possible")
    return size


def check_sum(sizes: np.ndarray) -> None:
    """ValueError where int64 could not hold the sums."""
    if float(sizes.astype(np.float64).sum()) > _MOST_SUM:
        raise ValueError("the sizes add up to more than any device holds")


def rounded(size: int) -> int:
    return max(GRANULE, -(-size // GRANULE) * GRANULE)


def growing_times(times: np.ndarray) -> np.ndarray:
    """Missing times (0) and steps back take the time before them."""
    return np.maximum.accumulate(times)


def cut(held: list[list[Any]], begin: int, end: int) -> list[list[Any]]:
    """Takes [begin, end) out of `held`, sorted rows of address, size and more; returns what was there."""
    first = max(bisect.bisect_left(held, [begin]) - 1, 0)
    last = bisect.bisect_left(held, [end])
    rest, taken = [], []
    for address, size, *others in held[first:last]:
        low, high = max(address, begin), min(address + size, end)
        if low >= high:
            rest.append([address, size, *others])
            continue
        taken.append([low, high - low, *others])
        if address < low:
            rest.append([address, low - address, *others])
        if high < address + size:
            rest.append([high, address + size - high, *others])
    held[first:last] = rest
    return taken
