"""A report as one HTML file to explore: no network, no library, whatever the recording's length.

What is drawn is bounded: columns of the course of time, the blocks that cover most of the map, the first marks. What is
left out is said on the page. Numbers travel as base64 of plain arrays.
"""

from __future__ import annotations

import base64
import html
import json
import pathlib
import re
from typing import Any

import numpy as np

from . import _page_tables
from ._activity import WorkKind, has_own_clock, host_curve, streams
from ._console import five_lines
from ._figures import Timeline, peak_state, split_at, timeline
from ._model import Category, Device, Phase, Recording
from ._planned import Saving
from ._stacks import of_program
from ._tables import Compared

_COLUMNS = 4000
_MOST_BLOCKS = 60_000
_MOST_MARKS = 2000
_MOST_SPLITS = 64
_MOST_LANES = 12
_MOST_WORKS = 60_000
_STALLED = 3  # beside WorkKind: a copy that the compute stream stood still for
_OWN_CLOCK = "Copies of swaps have virtual times here (a simulated GPU): their lanes do not run with the rest."
_TEMPLATE = "_page.html"


def render(recording: Recording, device: Device, saving: Saving | None, other: Compared | None = None) -> str:
    """`other`: what the recording is set beside."""
    name = pathlib.PurePath(recording.source).name
    filled = {
        "TITLE": html.escape(f"{name}, {device.name}"),
        "LINES": html.escape(five_lines(recording, device, saving)),
        "CARDS": _page_tables.cards(device, saving),
        "TABLES": _page_tables.tables(recording, device),
        "COMPARED": "" if other is None else _page_tables.compared_table(Compared(recording.source, device, saving), other),
        # Inside <script>, only a "</script>" or "<!--" could end it early.
        "DATA": json.dumps(_data(recording, device, saving, other), separators=(",", ":")).replace("<", "\\u003c"),
    }
    page = pathlib.Path(__file__).with_name(_TEMPLATE).read_text(encoding="utf-8")
    return re.sub("{{(TITLE|LINES|CARDS|TABLES|COMPARED|DATA)}}", lambda found: filled[found[1]], page)


def _packed(values: np.ndarray, kind: str) -> str:
    return base64.b64encode(np.ascontiguousarray(values.astype(kind))).decode()


def _not_torch(line: Timeline) -> str | None:
    if line.device_used is None or line.reserved is None:
        return None
    return _packed(np.maximum(line.device_used - line.reserved, 0), "<f8")


def _data(recording: Recording, device: Device, saving: Saving | None, other: Compared | None) -> dict[str, Any]:
    line = timeline(device, _COLUMNS)
    state = peak_state(device)
    times = (device.times_ns - device.times_ns[0]) / 1e9
    return {
        "states": device.states,
        "peak": state,
        "seconds": device.seconds,
        "columns": {
            "states": _packed(line.states, "<u4"),
            "seconds": _packed(times[line.states], "<f8"),
            "live": _packed(line.live, "<f8"),
            "reserved": None if line.reserved is None else _packed(line.reserved, "<f8"),
            "used": None if line.device_used is None else _packed(line.device_used, "<f8"),
            "not_torch": _not_torch(line),
            "categories": {int(category): _packed(sizes, "<f8") for category, sizes in line.categories.items()},
        },
        "names": [category.text for category in Category],
        "split": split_at(device, state).parts,
        "splits": _splits(device, line.states, state),
        "marks": [[mark.state, mark.name] for mark in device.marks[:_MOST_MARKS]],
        "failures": [[failure.state, failure.asked] for failure in device.failures],
        "map": _map(device, saving),
        "lanes": _lanes(device),
        "host": _host(device),
        "compared": None if other is None else [_course(recording.source, device), _course(other.source, other.device)],
    }


def _splits(device: Device, states: np.ndarray, peak: int) -> list[tuple[int, list[tuple[str, int]]]]:
    """Where the bytes are at some moments, the peak among them: a reader is told of the one before where they point."""
    shown = np.union1d(states[:: -(-len(states) // _MOST_SPLITS)], [peak])
    return [(state, split_at(device, state).parts) for state in shown.tolist()]


def _course(source: str, device: Device) -> dict[str, Any]:
    """A recording's memory over its length, to be drawn over another's."""
    line = timeline(device, _COLUMNS // 4)
    return {
        "name": pathlib.PurePath(source).name,
        "at": _packed(line.states / max(device.states - 1, 1), "<f8"),
        "live": _packed(line.live, "<f8"),
        "reserved": None if line.reserved is None else _packed(line.reserved, "<f8"),
    }


def _lanes(device: Device) -> dict[str, Any] | None:
    """What ran on streams, and copies of swaps: the longest of them."""
    activity = device.activity
    if activity is None or not (len(activity.work) or len(activity.copies.begin)):
        return None
    work, copies = activity.work, activity.copies
    busiest = [share.stream for share in streams(work)][:_MOST_LANES]
    lane_of = np.array([busiest.index(stream) if stream in busiest else -1 for stream in work.stream.tolist()], np.int16)
    lane = np.concatenate([lane_of, len(busiest) + copies.is_in.astype(np.int16)])
    begin, length = np.concatenate([work.begin, copies.begin]), np.concatenate([work.length, copies.length])
    kind = np.concatenate([work.kind, np.where(copies.exposed > 0, _STALLED, WorkKind.COPY).astype(np.int8)])
    names = [*activity.names, "swap out", "swap in"]
    name = np.concatenate([work.name, len(activity.names) + copies.is_in.astype(np.int32)])
    drawn = np.sort(np.argsort(np.where(lane < 0, 1, -length), kind="stable")[: min(_MOST_WORKS, int((lane >= 0).sum()))])
    used, which = np.unique(name[drawn], return_inverse=True)
    swap_lanes = ["swap out", "swap in"] if len(copies.begin) else []
    return {
        "names": [f"stream {stream}" for stream in busiest] + swap_lanes,
        "note": _OWN_CLOCK if has_own_clock(activity) else "",
        "left_out": len(lane) - len(drawn),
        "lane": _packed(lane[drawn], "u1"),
        "kind": _packed(kind[drawn], "u1"),
        "begin": _packed(_seconds(device, begin[drawn]), "<f8"),
        "length": _packed(length[drawn] / 1e9, "<f8"),
        "begin_state": _packed(_states(device, begin[drawn]), "<f8"),
        "end_state": _packed(_states(device, begin[drawn] + length[drawn]), "<f8"),
        "name": _packed(which, "<u4"),
        "texts": [names[i] for i in used.tolist()],
    }


def _host(device: Device) -> dict[str, Any] | None:
    """Host memory: what is pinned through CUDA, what of it for swaps, and what of that is taken."""
    activity = device.activity
    if activity is None or not (activity.has_swaps or len(activity.cuda_pinned)):
        return None
    times, taken = host_curve(activity.swaps)
    shown = np.unique(np.linspace(0, max(len(times) - 1, 0), min(len(times), _COLUMNS)).astype(np.int64))
    lines = {"taken": (times[shown], taken[shown]), "pinned": (activity.pinned_times, activity.pinned)}
    if len(activity.cuda_pinned):
        lines["all"] = (activity.cuda_pinned_times, activity.cuda_pinned)
    return {
        name: {
            "seconds": _packed(_seconds(device, at), "<f8"),
            "states": _packed(_states(device, at), "<f8"),
            "sizes": _packed(sizes, "<f8"),
        }
        for name, (at, sizes) in lines.items()
    }


def _seconds(device: Device, times_ns: np.ndarray) -> np.ndarray:
    return (times_ns - int(device.times_ns[0])) / 1e9


def _states(device: Device, times_ns: np.ndarray) -> np.ndarray:
    """Where a moment stands among the states: between two of them, in proportion."""
    return np.interp(times_ns, device.times_ns, np.arange(device.states))


def _map(device: Device, saving: Saving | None) -> dict[str, Any]:
    """The blocks that cover most of time x address. Addresses are drawn without the gaps between held ranges."""
    blocks = device.blocks
    area = (blocks.release - blocks.birth).astype(np.float64) * blocks.held
    drawn = np.sort(np.argsort(-area, kind="stable")[:_MOST_BLOCKS])
    begins, tops, height = _ranges(device)
    planned = saving.offsets(len(blocks))[drawn] if saving is not None else None
    segments = device.segments
    return {
        "height": height,
        "plan": saving.plan if saving is not None else None,
        "left_out": len(blocks) - len(drawn),
        "place": _packed(_squeezed(blocks.address[drawn], begins, tops), "<f8"),
        "planned": None if planned is None else _packed(planned, "<f8"),
        "size": _packed(blocks.held[drawn], "<f8"),
        "requested": _packed(blocks.size[drawn], "<f8"),
        "birth": _packed(blocks.birth[drawn], "<u4"),
        "death": _packed(blocks.release[drawn], "<u4"),
        "category": _packed(blocks.category[drawn], "u1"),
        "phase": _packed(blocks.phase[drawn], "u1"),
        "owner": _packed(blocks.owner[drawn], "<u4"),
        "owners": device.owners,
        **_stacks(device, drawn),
        "phases": [phase.name.lower() for phase in Phase],
        "segments": {
            "place": _packed(_squeezed(segments.address, begins, tops), "<f8"),
            "size": _packed(segments.size, "<f8"),
            "birth": _packed(segments.birth, "<u4"),
            "death": _packed(segments.death, "<u4"),
        },
    }


def _stacks(device: Device, drawn: np.ndarray) -> dict[str, Any]:
    """Of each block that is drawn the program's lines where it was made, by number: most blocks share them."""
    stacks, which = np.unique(device.blocks.stack[drawn], return_inverse=True)
    texts = [of_program(device.frames_of(stack), _page_tables.MOST_FRAMES) if stack else [] for stack in stacks.tolist()]
    lines = list(dict.fromkeys(line for text in texts for line in text))
    places = {line: place for place, line in enumerate(lines)}
    return {"stack": _packed(which, "<u4"), "stacks": [[places[line] for line in text] for text in texts], "lines": lines}


def _ranges(device: Device) -> tuple[np.ndarray, np.ndarray, int]:
    """Where each range of addresses that was ever used begins, where it is drawn, and the height of all."""
    begins = np.concatenate([device.segments.address, device.blocks.address])
    ends = begins + np.concatenate([device.segments.size, device.blocks.held]).astype(np.uint64)
    if not len(begins):
        return np.zeros(1, np.uint64), np.zeros(1, np.int64), 1
    order = np.argsort(begins, kind="stable")
    begins, reach = begins[order], np.maximum.accumulate(ends[order])
    heads = np.flatnonzero(np.concatenate([[True], begins[1:] > reach[:-1]]))
    lasts = np.append(heads[1:], len(begins)) - 1
    sizes = (reach[lasts] - begins[heads]).astype(np.int64)
    tops = np.concatenate([[0], np.cumsum(sizes)])
    return begins[heads], tops[:-1], int(tops[-1])


def _squeezed(addresses: np.ndarray, begins: np.ndarray, tops: np.ndarray) -> np.ndarray:
    of = np.searchsorted(begins, addresses, side="right") - 1
    return tops[of] + (addresses - begins[of]).astype(np.int64)
