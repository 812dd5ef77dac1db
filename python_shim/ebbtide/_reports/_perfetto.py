"""Chrome's trace event format, which Perfetto's viewer (ui.perfetto.dev) opens: a writer, and recordings written.

`TraceEvents` knows nothing of recordings, so that others can write their pictures with it. Times are nanoseconds
there, microseconds in the file.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from ._activity import Activity, host_curve
from ._figures import timeline
from ._model import Device, Phase, Recording

_MOST_POINTS = 20_000
_MOST_SLICES = 200_000  # of a device
_GPU, _SWAPS = 10_000, 20_000  # processes of their own


class TraceEvents:
    """Collects events of processes (pid) and tracks in them (tid); numbers are the caller's."""

    def __init__(self) -> None:
        self._events: list[dict[str, Any]] = []

    def name_process(self, pid: int, name: str) -> None:
        self._events.append({"ph": "M", "name": "process_name", "pid": pid, "args": {"name": name}})

    def name_track(self, pid: int, tid: int, name: str) -> None:
        self._events.append({"ph": "M", "name": "thread_name", "pid": pid, "tid": tid, "args": {"name": name}})

    def slice(self, pid: int, tid: int, name: str, begin_ns: int, end_ns: int, **facts: Any) -> None:
        """Something that took time; those of one track nest or follow each other."""
        at = {"ph": "X", "name": name, "pid": pid, "tid": tid, "ts": begin_ns / 1000}
        self._events.append({**at, "dur": max(end_ns - begin_ns, 0) / 1000, "args": facts})

    def instant(self, pid: int, tid: int, name: str, at_ns: int) -> None:
        self._events.append({"ph": "i", "s": "t", "name": name, "pid": pid, "tid": tid, "ts": at_ns / 1000})

    def counter(self, pid: int, name: str, at_ns: int, values: dict[str, int]) -> None:
        """The values, stacked in one track."""
        self._events.append({"ph": "C", "name": name, "pid": pid, "ts": at_ns / 1000, "args": values})

    def render(self) -> str:
        return json.dumps({"displayTimeUnit": "ns", "traceEvents": self._events}, separators=(",", ":"))


def render(recording: Recording) -> str:
    events = TraceEvents()
    for device in recording.devices:
        _add(events, device)
        if device.activity is not None:
            _add_work(events, device, device.activity)
            _add_swaps(events, device, device.activity)
    return events.render()


def _add(events: TraceEvents, device: Device) -> None:
    pid = device.index + 2  # 0 is not shown as a process
    events.name_process(pid, f"memory of {device.name}")
    events.name_track(pid, 1, "phases")
    events.name_track(pid, 2, "marks")
    # Without times an event is a microsecond.
    times = device.times_ns if device.seconds else [state * 1000 for state in range(device.states)]
    begin = int(times[0])
    line = timeline(device, _MOST_POINTS)
    for i, state in enumerate(line.states.tolist()):
        at = int(times[state]) - begin
        events.counter(pid, "live by category", at, {c.text: int(sizes[i]) for c, sizes in line.categories.items()})
        if line.reserved is not None:
            events.counter(pid, "reserved", at, {"reserved": int(line.reserved[i])})
        if line.device_used is not None:
            events.counter(pid, "used of the device", at, {"used": int(line.device_used[i])})
    for phase, first, last in _phases(device):
        events.slice(pid, 1, phase, int(times[first]) - begin, int(times[last]) - begin)
    for mark in device.marks:
        events.instant(pid, 2, mark.name, int(times[mark.state]) - begin)
    for failure in device.failures:
        events.instant(pid, 2, f"out of memory: {failure.asked} bytes", int(times[failure.state]) - begin)


def _add_work(events: TraceEvents, device: Device, activity: Activity) -> None:
    """A track for each stream. Where there is too much, what took longest."""
    work = activity.work
    if not len(work):
        return
    pid, begin = _GPU + device.index, int(device.times_ns[0])
    events.name_process(pid, f"streams of {device.name}")
    tracks = {int(stream): i + 1 for i, stream in enumerate(np.unique(work.stream))}
    for stream, tid in tracks.items():
        events.name_track(pid, tid, f"stream {stream}")
    for i in np.sort(np.argsort(-work.length, kind="stable")[:_MOST_SLICES]).tolist():
        at, facts = int(work.begin[i]) - begin, {"bytes": int(work.size[i])} if work.size[i] else {}
        events.slice(pid, tracks[int(work.stream[i])], activity.names[work.name[i]], at, at + int(work.length[i]), **facts)


def _add_swaps(events: TraceEvents, device: Device, activity: Activity) -> None:
    """Copies by the device's clock, and host memory by ours."""
    if not activity.has_swaps:
        return
    pid, begin = _SWAPS + device.index, int(device.times_ns[0])
    events.name_process(pid, f"swaps of {device.name}")
    events.name_track(pid, 1, "copies out")
    events.name_track(pid, 2, "copies in")
    swaps, copies = activity.swaps, activity.copies
    place = {int(ticket): i for i, ticket in enumerate(swaps.ticket.tolist())}
    for i in range(min(len(copies.begin), _MOST_SLICES)):
        of = place.get(int(copies.ticket[i]))
        name = "copy" if of is None else activity.names[swaps.layer[of]]
        at = int(copies.begin[i]) - begin
        facts = {"ticket": int(copies.ticket[i]), "exposed_ns": int(copies.exposed[i])}
        events.slice(pid, 2 if copies.is_in[i] else 1, name, at, at + int(copies.length[i]), **facts)
    for at, size in zip(*(values.tolist() for values in host_curve(swaps)), strict=True):
        events.counter(pid, "swapped to the host", at - begin, {"bytes": size})
    for at, size in zip(activity.pinned_times.tolist(), activity.pinned.tolist(), strict=True):
        events.counter(pid, "pinned host memory", at - begin, {"bytes": size})


def _phases(device: Device) -> list[tuple[str, int, int]]:
    """Runs of allocations of one phase: its name, and where the first and the last of them were."""
    runs: list[tuple[str, int, int]] = []
    for phase, birth in zip(device.blocks.phase.tolist(), device.blocks.birth.tolist(), strict=True):
        name = Phase(phase).name.lower()
        if phase == Phase.UNKNOWN or birth == 0:
            continue
        if runs and runs[-1][0] == name:
            runs[-1] = (name, runs[-1][1], birth)
        else:
            runs.append((name, birth, birth))
    return runs
