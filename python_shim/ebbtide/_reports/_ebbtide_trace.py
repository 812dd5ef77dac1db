"""Our own traces (EBBTIDE_TRACE) as recordings. The library reads and judges the file; see docs/trace-file.md."""

from __future__ import annotations

import bisect
import ctypes
import itertools
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import _abi, _native
from .._abi import Mark as MarkKind
from .._errors import EbbtideError
from . import _activity_reading
from ._categories import categories_of
from ._model import (
    GRANULE,
    NEW_PLAN,
    Blocks,
    Device,
    Failure,
    Mark,
    Phase,
    Recording,
    Segments,
    Steps,
    check_sum,
    cut,
    growing_times,
)

MAGIC = b"EBBTRACE"
_EVENT = np.dtype(_abi.EventStruct)
# Actions of allocator/base/event.h.
_ALLOCATE, _FREE, _MARK, _ROUND, _PLAN, _RESERVED = 1, 2, 4, 5, 6, 10
_SEGMENT_TAKEN, _SEGMENT_GIVEN_BACK, _UPSTREAM_ALLOCATE, _UPSTREAM_FREE = 11, 12, 13, 14
_DEVICE_USED, _OUT_OF_MEMORY, _NAME, _OWNER, _FRAME, _STACK = 15, 16, 17, 18, 31, 32
_NO_DEVICE = -128
_IN_BACKWARD = 1  # a bit of an allocation's detail
_PHASE_OF_MARK = {
    MarkKind.FORWARD: Phase.FORWARD,
    MarkKind.INFERENCE: Phase.FORWARD,
    MarkKind.OPTIMIZER: Phase.OPTIMIZER,
}
_MOST_BYTES = 1 << 48
_UNNAMED = "no module"
_PHASE_OWNERS = ["backward", "optimizer", "before the first iteration"]  # of what no module made


def read(path: str) -> Recording:
    """EbbtideError if it is no trace; a cut or damaged one is read up to there."""
    events, damage, lost = _events(path)
    names = _names(events)
    number, owner, owners = _owners(events, names)
    stacks, frames_of = _stacks(events, names)
    is_beside = _activity_reading.is_beside(events)
    beside, working = events[is_beside], number[is_beside]
    devices = []
    for index in np.unique(events["device"][~is_beside]):
        if index != _NO_DEVICE:
            own = (events["device"] == index) & ~is_beside
            try:
                device = _device(int(index), events[own], owner[own], owners, stacks[own])
                device.frames_of = frames_of
                device.activity = _activity_reading.read(beside, working, device, names)
                devices.append(device)
            except ValueError as error:
                raise EbbtideError(f"{path}: {error}") from None
    return Recording(path, "Ebbtide trace", devices, damage, lost, len(events))


def _events(path: str) -> tuple[np.ndarray, str, int]:
    library = _native.part(_abi.TRACE_FUNCTIONS)
    trace = ctypes.c_void_p()
    _native.check(library.ebbtide_trace_open(os.fsencode(path), ctypes.byref(trace)))
    try:
        blocks = [np.empty(0, _EVENT)]
        first = ctypes.POINTER(_abi.EventStruct)()
        while count := library.ebbtide_trace_next(trace, ctypes.byref(first)):
            blocks.append(np.frombuffer(ctypes.string_at(first, count * _EVENT.itemsize), _EVENT))
        info = _abi.TraceInfoStruct(struct_size=ctypes.sizeof(_abi.TraceInfoStruct))
        _native.check(library.ebbtide_trace_get_info(trace, ctypes.byref(info)))
    finally:
        library.ebbtide_trace_close(trace)
    return np.concatenate(blocks), info.damage.decode(errors="replace"), info.lost_events


def _names(events: np.ndarray) -> dict[int, str]:
    """Texts by their number: of modules, kernels, libraries."""
    names: dict[int, str] = {}
    for event in events[events["action"] == _NAME]:
        piece = event["address"].tobytes() + event["bytes"].tobytes() + event["stream"].tobytes()
        number = int(event["thread"])
        names[number] = names.get(number, "") + piece[: event["detail"]].decode(errors="replace")
    return names


def _owners(events: np.ndarray, names: dict[int, str]) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Of each event, who its thread allocated for: the name's number, and its index in the list of such names."""
    named = _set_by_threads(events, _OWNER)
    # A name whose record was lost is nobody's.
    numbers = [number for number in np.unique(named).tolist() if number in names]
    texts = list(dict.fromkeys([_UNNAMED, *(names[number] for number in numbers)]))
    owner = np.zeros(len(events), np.int32)
    for number in numbers:
        owner[named == number] = texts.index(names[number])
    return named, owner, texts


def _stacks(events: np.ndarray, names: dict[int, str]) -> tuple[np.ndarray, Callable[[int], tuple[str, ...]]]:
    """Of each event its thread's stack by number, and what gives the frames of one."""
    told = events[events["action"] == _FRAME]
    numbers, texts, callers = (told[name].tolist() for name in ("thread", "address", "bytes"))
    calls = dict(zip(numbers, zip(texts, callers, strict=True), strict=True))

    def frames_of(stack: int) -> tuple[str, ...]:
        frames: list[str] = []
        # A caller has a smaller number, unless the file is damaged: that ends the walk, too.
        while stack > 0 and stack in calls:
            text, caller = calls[stack]
            frames.append(names.get(text, "(its record was lost)"))
            stack = caller if caller < stack else 0
        return tuple(frames)

    stacks = _set_by_threads(events, _STACK)
    known = np.array(sorted(calls), np.int64)
    return np.where(np.isin(stacks, known), stacks, 0).astype(np.int32), frames_of


def _set_by_threads(events: np.ndarray, action: int) -> np.ndarray:
    """Of each event, the value that the last event of this action in its thread has set; 0 before the first."""
    sets = np.flatnonzero(events["action"] == action)
    values = np.zeros(len(events), np.int64)
    for thread in np.unique(events["thread"][sets]):
        own = sets[events["thread"][sets] == thread]
        given = np.array([0, *events["bytes"][own]], np.int64)
        of_thread = np.flatnonzero(events["thread"] == thread)
        values[of_thread] = given[np.searchsorted(own, of_thread, side="right")]
    return values


def _device(index: int, events: np.ndarray, owner: np.ndarray, names: list[str], stacks: np.ndarray) -> Device:
    states = len(events) + 1
    state = np.arange(1, states)
    action = events["action"]
    size = np.clip(events["bytes"], 0, _MOST_BYTES)
    blocks, unknown_frees = _blocks(events, size, owner, len(names), stacks, states, rounds=index >= 0)
    segments = Segments.of_rows(_segments(events, size, states))
    check_sum(blocks.held)
    check_sum(segments.size)
    blocks.category = categories_of(blocks, states)
    times = np.concatenate([events["time_ns"][:1], events["time_ns"]])
    reserved, used = action == _RESERVED, action == _DEVICE_USED
    device = Device(
        index,
        states,
        growing_times(np.clip(times, 0, 1 << 62).astype(np.int64)),
        blocks,
        segments,
        len(segments) > 0,
        [*names, *_PHASE_OWNERS],
        marks=_marks(events, state),
        reserved_steps=Steps(state[reserved], size[reserved]) if reserved.any() else None,
        device_used=Steps(state[used], size[used]) if used.any() else None,
        device_total=int(events["address"][used][-1]) if used.any() else None,
        failures=[
            Failure(int(at), int(size[at - 1]), int(events["address"][at - 1]), names[owner[at - 1]], stack=int(stacks[at - 1]))
            for at in state[action == _OUT_OF_MEMORY]
        ],
    )
    if unknown_frees:
        device.notes.append(f"{unknown_frees} frees of what the trace does not show allocated")
    return device


def _blocks(
    events: np.ndarray, size: np.ndarray, owner: np.ndarray, names: int, stacks: np.ndarray, states: int, rounds: bool
) -> tuple[Blocks, int]:
    """Each allocation ends with the next free of its address, or the next allocation there.

    What upstream handed out for an engine is there twice, upstream's event first: the engine's counts, from
    upstream's on.
    """
    action = events["action"]
    begins = (action == _ALLOCATE) | (action == _UPSTREAM_ALLOCATE)
    places = np.flatnonzero(begins | (action == _FREE) | (action == _UPSTREAM_FREE))
    order = places[np.argsort(events["address"][places], kind="stable")]
    same = events["address"][order][1:] == events["address"][order][:-1]
    ends = np.full(len(order), states, np.int64)
    ends[:-1][same] = order[1:][same] + 1
    births = order + 1
    is_counted = begins[order].copy()
    is_doubled = same & (action[order][:-1] == _UPSTREAM_ALLOCATE) & (action[order][1:] == _ALLOCATE)
    is_counted[:-1] &= ~is_doubled
    births[1:][is_doubled] = births[:-1][is_doubled]
    is_answered = np.zeros(len(order), bool)
    is_answered[1:] = same & begins[order][:-1]
    unknown_frees = int(((action[order] == _FREE) & ~is_answered).sum())

    counted = np.flatnonzero(is_counted)
    counted = counted[np.argsort(births[counted], kind="stable")]
    born, deaths = order[counted], ends[counted]
    given = size[born].astype(np.int64)
    phase = _phases(events)[born]
    named = owner[born].copy()
    for number, phase_of_owner in enumerate((Phase.BACKWARD, Phase.OPTIMIZER, Phase.SETUP)):
        named[(named == 0) & (phase == phase_of_owner)] = names + number
    blocks = Blocks(
        events["address"][born],
        given,
        np.maximum(-(-given // GRANULE) * GRANULE, GRANULE) if rounds else given.copy(),
        births[counted],
        deaths,
        deaths,
        events["stream"][born],
        named,
        phase,
        np.zeros(len(born), np.int8),
        events["placement"][born].astype(np.int8),
        stacks[born],
    )
    return blocks, unknown_frees


def _segments(
    events: np.ndarray, size: np.ndarray, states: int
) -> list[tuple[int, int, int, int, bool, int]]:
    """The lives of what was taken from the device; parts may be given back, or in one what was taken in several."""
    held: list[list[Any]] = []
    rows = []
    action = events["action"]
    for at in np.flatnonzero((action == _SEGMENT_TAKEN) | (action == _SEGMENT_GIVEN_BACK)):
        event = events[at]
        begin, end = int(event["address"]), int(event["address"]) + int(size[at])
        for part in cut(held, begin, end):
            rows.append((part[0], part[1], part[2], int(at) + 1, part[3], part[4]))
        if event["action"] == _SEGMENT_TAKEN:
            grows, stream = bool(event["detail"] & 1), int(event["stream"])
            bisect.insort(held, [begin, end - begin, int(at) + 1, grows, stream])
    rows += [(part[0], part[1], part[2], states, part[3], part[4]) for part in held]
    return rows


def _phases(events: np.ndarray) -> np.ndarray:
    """Of each event: the backward says itself that it is one, the rest follows from the last mark."""
    phases = np.full(len(events), Phase.UNKNOWN, np.int8)
    is_backward = np.isin(events["action"], (_ALLOCATE, _UPSTREAM_ALLOCATE)) & (events["detail"] & _IN_BACKWARD > 0)
    marks = np.flatnonzero(events["action"] == _MARK)
    if len(marks):
        phases[: marks[0]] = Phase.SETUP
    for begin, end in itertools.pairwise([*marks.tolist(), len(events)]):
        phase = _PHASE_OF_MARK.get(int(events["detail"][begin]), Phase.UNKNOWN)
        backward = np.flatnonzero(is_backward[begin:end])
        # After the backward the forward is over, and no mark says so.
        until = begin + int(backward[-1]) + 1 if len(backward) and phase == Phase.FORWARD else end
        phases[begin:until] = phase
    phases[is_backward] = Phase.BACKWARD
    return phases


def _marks(events: np.ndarray, state: np.ndarray) -> list[Mark]:
    names = {kind: kind.name.lower().replace("_", " ") for kind in MarkKind}
    marks = [
        Mark(int(at), names.get(int(detail), f"mark {detail}"))
        for at, detail in zip(state[events["action"] == _MARK], events["detail"][events["action"] == _MARK], strict=True)
    ]
    for at, number in zip(state[events["action"] == _ROUND], events["bytes"][events["action"] == _ROUND], strict=True):
        marks.append(Mark(int(at), f"round {number} ends"))
    marks += [Mark(int(at), NEW_PLAN) for at in state[events["action"] == _PLAN]]
    return sorted(marks, key=lambda mark: mark.state)
