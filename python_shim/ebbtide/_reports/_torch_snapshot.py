"""PyTorch's memory snapshots (torch.cuda.memory._dump_snapshot) as recordings. Nothing in them is executed.

A snapshot tells exactly what is held and alive at its end, and the events before it. What lived before the first
event is found backwards: what was freed without having been allocated, and what the end holds and no event made.
"""

from __future__ import annotations

import bisect
import io
import os
import pickle
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from .. import _abi, _native
from .._errors import EbbtideError, one_line
from ._categories import categories_of
from ._model import (
    Blocks,
    Device,
    Failure,
    Mark,
    Phase,
    Recording,
    Segments,
    check_bytes,
    check_sum,
    cut,
    growing_times,
    rounded,
)
from ._stacks import Stacks

_MOST_ADDRESS = 1 << 64


def looks_like_one(content: bytes) -> bool:
    return content.startswith(b"\x80")


def read(content: bytes, source: str) -> Recording:
    """EbbtideError in one line, with the place, if this is not a snapshot."""
    snapshot = _unpickled(content, source)
    place = ""

    def entered(where: str) -> None:
        nonlocal place
        place = where

    try:
        devices = _devices(snapshot, entered)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        missing = f"no key {error}" if isinstance(error, KeyError) else one_line(error)
        raise EbbtideError(f"{source}: {place or 'snapshot'}: {missing}") from None
    events = sum(device.states - 1 for device in devices)
    return Recording(source, "PyTorch snapshot", devices, events=events)


class _PlainUnpickler(pickle.Unpickler):
    """Containers, numbers and text only."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it asks for {module}.{name}; a snapshot holds plain values only")


def _unpickled(content: bytes, source: str) -> Mapping[str, Any]:
    # The library bounds what unpickling may take; Python's own reader is then fast and safe.
    library = _native.part(_abi.TRACE_FUNCTIONS)
    name = os.fsencode(source).replace(b"\0", b"?")
    _native.check(library.ebbtide_check_pickle(content, len(content), name))
    try:
        snapshot = _PlainUnpickler(io.BytesIO(content)).load()
    except Exception as error:
        raise EbbtideError(f"{source}: cannot be unpickled: {one_line(error)}") from None
    if not isinstance(snapshot, dict) or not isinstance(snapshot.get("segments"), list):
        raise EbbtideError(f"{source}: a pickle, but not a PyTorch memory snapshot: it has no segments")
    return snapshot


def _devices(snapshot: Mapping[str, Any], entered: Callable[[str], None]) -> list[Device]:
    traces = snapshot.get("device_traces") or []
    if not isinstance(traces, (list, tuple)) or len(traces) > 4096:
        raise ValueError("device_traces is no list of the devices' events")
    segments: dict[int, list[Mapping[str, Any]]] = {}
    for number, segment in enumerate(snapshot["segments"]):
        entered(f"segments[{number}]")
        segments.setdefault(_whole(segment.get("device", 0), 4096), []).append(segment)
    annotations = snapshot.get("external_annotations") or []
    devices = []
    for index in sorted({*segments, *(i for i, trace in enumerate(traces) if trace)}):
        trace = traces[index] if index < len(traces) else []
        reader = _DeviceReader(index, trace, segments.get(index, []), annotations)
        devices.append(reader.read(entered))
    return devices


def _whole(value: object, limit: int) -> int:
    if type(value) is not int or not 0 <= value < limit:
        raise ValueError(f"{str(value)[:40]!r} where a number belongs")
    return value


class _DeviceReader:
    def __init__(
        self, index: int, trace: Any, segments: list[Mapping[str, Any]], annotations: Any
    ) -> None:
        if not isinstance(trace, (list, tuple)):
            raise ValueError(f"device_traces[{index}] is no list of events")
        self._index = index
        self._trace = trace
        self._given_segments = segments
        self._states = len(trace) + 1
        self._stacks = Stacks(any(entry.get("frames") for entry in trace))
        self._steps = _optimizer_steps(annotations, index)
        self._rows: list[tuple[int, ...]] = []
        self._open: dict[int, list[int]] = {}  # by address: its row without release, still alive
        self._waiting: dict[int, list[int]] = {}  # freed, but other streams may still use it
        self._failures: list[Failure] = []
        self._now_us = 0

    def read(self, entered: Callable[[str], None]) -> Device:
        times = np.zeros(self._states, np.int64)
        for i, entry in enumerate(self._trace):
            entered(f"device_traces[{self._index}][{i}]")
            self._now_us = _whole(entry.get("time_us", 0), 1 << 53)
            times[i + 1] = self._now_us * 1000
            self._event(entry, i + 1)
        times[0] = times[1] if self._states > 1 else 0
        entered(f"segments of device {self._index}")
        pieces = list(self._end())
        self._close()
        blocks = Blocks.of_rows(self._rows)
        check_sum(blocks.held)
        segments = Segments.of_rows(_history(pieces, self._trace, self._states))
        check_sum(segments.size)
        blocks.category = categories_of(blocks, self._states)
        times = growing_times(times)
        return Device(
            self._index,
            self._states,
            times,
            blocks,
            segments,
            True,
            self._stacks.owners,
            marks=self._marks(times),
            failures=self._failures,
            end_is_exact=True,
            frames_of=self._stacks.frames_of,
        )

    def _event(self, entry: Mapping[str, Any], state: int) -> None:
        action = entry["action"]
        if action == "oom":
            free = entry.get("device_free")
            frames = entry.get("frames")
            owner = self._stacks.owners[self._stacks.owner(frames)]
            asked = check_bytes(entry["size"])
            known = free if type(free) is int else None
            self._failures.append(Failure(state, asked, known, owner, stack=self._stacks.number(frames)))
        elif action in ("alloc", "free_requested", "free_completed"):
            address = _whole(entry["addr"], _MOST_ADDRESS)
            size = check_bytes(entry["size"])
            if action == "alloc":
                self._allocate(entry, address, size, state)
            elif action == "free_requested":
                self._free(address, size, state, _whole(entry.get("stream", 0), _MOST_ADDRESS))
            elif address in self._waiting:
                self._finish(self._waiting.pop(address), state)

    def _allocate(self, entry: Mapping[str, Any], address: int, size: int, state: int) -> None:
        if address in self._open:  # its free was not recorded
            self._free(address, size, state, 0)
        if address in self._waiting:
            self._finish(self._waiting.pop(address), state)
        frames = entry.get("frames")
        phase = self._stacks.phase(frames, self._is_stepping())
        stream = _whole(entry.get("stream", 0), _MOST_ADDRESS)
        owner = self._stacks.owner(frames)
        self._open[address] = [address, size, rounded(size), state, -1, stream, owner, phase, self._stacks.number(frames)]

    def _free(self, address: int, size: int, state: int, stream: int) -> None:
        row = self._open.pop(address, None)
        if row is None:  # alive before the first event
            row = [address, size, rounded(size), 0, -1, stream, self._stacks.owner(None, True), Phase.UNKNOWN, 0]
        row[4] = state
        if address in self._waiting:
            self._finish(self._waiting.pop(address), state)
        self._waiting[address] = row

    def _finish(self, row: list[int], release: int) -> None:
        address, size, held, birth, death, stream, owner, phase, stack = row
        self._rows.append((address, size, held, birth, death, release, stream, owner, phase, stack))

    def _end(self) -> Iterator[tuple[int, int, bool, int]]:
        """The segments at the end; the blocks in them say how large they really are."""
        for segment in self._given_segments:
            base = _whole(segment["address"], _MOST_ADDRESS)
            stream = _whole(segment.get("stream", 0), _MOST_ADDRESS)
            address = base
            for block in segment["blocks"]:
                size = check_bytes(block["size"])
                self._end_block(block, address, size, stream)
                address += size
            total = check_bytes(segment["total_size"])
            if total < address - base:
                raise ValueError(f"a segment of {total} bytes holds {address - base}")
            yield base, total, bool(segment.get("is_expandable", False)), stream

    def _end_block(self, block: Mapping[str, Any], address: int, size: int, stream: int) -> None:
        state = block["state"]
        if state == "inactive":
            return
        row = (self._open if state == "active_allocated" else self._waiting).get(address)
        # Before torch 2.1 a block has a history, the newest first, in which its size and stack are.
        made = (block.get("history") or [{}])[0]
        requested = min(check_bytes(block.get("requested_size", made.get("real_size", size))), size)
        if row is not None:
            row[1], row[2] = requested, size
            return
        frames = block.get("frames") or made.get("frames")
        owner = self._stacks.owner(frames, True)
        phase = self._stacks.phase(frames, False) if frames else Phase.UNKNOWN
        row = [address, requested, size, 0, self._states, stream, owner, phase, self._stacks.number(frames)]
        if state == "active_allocated":
            self._open[address] = row
        else:
            row[4] = 0
            self._waiting[address] = row

    def _close(self) -> None:
        for row in self._open.values():
            row[4] = self._states
            self._finish(row, self._states)
        for row in self._waiting.values():
            self._finish(row, self._states)

    def _is_stepping(self) -> bool:
        index = bisect.bisect_right(self._steps, (self._now_us, 1 << 60)) - 1
        return index >= 0 and self._now_us <= self._steps[index][1]

    def _marks(self, times: np.ndarray) -> list[Mark]:
        begins = np.array([begin * 1000 for begin, _ in self._steps], np.int64)
        inside = begins[(begins >= times[0]) & (begins <= times[-1])]
        return [Mark(int(s), "optimizer") for s in np.searchsorted(times, inside)]


def _optimizer_steps(annotations: Any, device: int) -> list[tuple[int, int]]:
    """When optimizers stepped, from record_function's ranges: pairs of microseconds, in order."""
    steps: list[tuple[int, int]] = []
    begin: int | None = None
    for annotation in annotations if isinstance(annotations, (list, tuple)) else ():
        if annotation.get("device", device) != device or not str(annotation.get("name")).startswith("Optimizer.step"):
            continue
        time = _whole(annotation.get("time_us"), 1 << 53)
        if annotation.get("stage") == "START":
            begin = time
        elif begin is not None:
            steps.append((begin, time))
            begin = None
    return sorted(steps)


def _history(
    pieces: list[tuple[int, int, bool, int]], trace: Any, states: int
) -> list[tuple[int, int, int, int, bool, int]]:
    """The segments' lives, from those at the end and the events, backwards."""
    held = sorted([address, size, states, grows, stream] for address, size, grows, stream in pieces)
    rows = []
    for i in range(len(trace) - 1, -1, -1):
        entry = trace[i]
        action = entry["action"]
        if action not in ("segment_alloc", "segment_map", "segment_free", "segment_unmap"):
            continue
        address, size = _whole(entry["addr"], _MOST_ADDRESS), check_bytes(entry["size"])
        for part in cut(held, address, address + size):
            rows.append((part[0], part[1], i + 1, part[2], part[3], part[4]))
        if action in ("segment_free", "segment_unmap"):
            stream = _whole(entry.get("stream", 0), _MOST_ADDRESS)
            bisect.insort(held, [address, size, i + 1, action == "segment_unmap", stream])
    rows += [(part[0], part[1], 0, part[2], part[3], part[4]) for part in held]
    return rows
