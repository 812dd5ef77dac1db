"""`ebbtide top`: one screen about a training process, from its page of shared memory or from a trace.

The page is profiler/status_page.h. Reading it costs the process nothing: it does not know of us.
"""

from __future__ import annotations

import ctypes as c
import dataclasses
import os
import pathlib
import re
import struct
import time
from typing import Any

from ._errors import EbbtideError
from ._report import device_name, size_text

_FOLDER = pathlib.Path("/dev/shm")
_NAME = re.compile(r"ebbtide-(\d+)-(\d+)$")
_MAGIC = 0x3154415453424245
_MOST_DEVICES = 16
_TRIES = 1000
_BAR = 30


class DeviceStruct(c.Structure):
    """StatusDevice."""

    _fields_ = [
        (name, c.c_int64)
        for name in (
            "device", "live", "peak_live", "reserved", "peak_reserved", "arena", "plan_height", "settled_bytes",
            "settled_planned_bytes", "divergences", "rounds",
        )
    ]  # fmt: skip


class StatusStruct(c.Structure):
    """Status1."""

    _fields_ = [
        *(
            (name, c.c_int64)
            for name in (
                "process", "started_ns", "updated_ns", "steps", "last_step_ns", "pinned", "host_live", "swapped_out",
                "swapped_in", "copying_ns", "exposed_ns", "devices",
            )
        ),
        ("device", DeviceStruct * _MOST_DEVICES),
    ]  # fmt: skip


@dataclasses.dataclass(frozen=True)
class View:
    """What the screen shows at one moment. Times in seconds; `link` in bytes a second, None before a second look."""

    title: str
    age: float
    steps: int
    step_seconds: float
    devices: list[DeviceStruct]
    status: StatusStruct | None = None
    link: tuple[float, float] | None = None


def running() -> list[int]:
    """Processes of this user that have a page. Pages of processes that are gone are removed."""
    found = []
    for path in sorted(_FOLDER.glob(f"ebbtide-{os.getuid()}-*")):
        name = _NAME.search(path.name)
        if name is None:
            continue
        if _is_alive(int(name[2])):
            found.append(int(name[2]))
        else:
            path.unlink(missing_ok=True)
    return found


def _is_alive(process: int) -> bool:
    return pathlib.Path(f"/proc/{process}").exists()


def read_page(process: int) -> StatusStruct:
    """EbbtideError if the process has no page."""
    path = _FOLDER / f"ebbtide-{os.getuid()}-{process}"
    try:
        file = path.open("rb", buffering=0)
    except OSError:
        state = "runs without Ebbtide, or is another user's" if _is_alive(process) else "does not run"
        raise EbbtideError(f"process {process} {state}: start it with EBBTIDE=1") from None
    with file:
        for _ in range(_TRIES):
            before = file.read(16)
            content = file.read(c.sizeof(StatusStruct))
            file.seek(0)
            if len(content) < c.sizeof(StatusStruct) or struct.unpack("<Q", before[:8])[0] != _MAGIC:
                raise EbbtideError(f"process {process} runs another version of Ebbtide")
            if before[8] % 2 == 0 and file.read(16) == before:
                return StatusStruct.from_buffer_copy(content)
            file.seek(0)
    raise EbbtideError(f"process {process} writes its page all the time")


def view_of_process(process: int, before: StatusStruct | None = None) -> View:
    """`before`: what was read earlier, for the link's speed."""
    status = read_page(process)
    link = None
    if before is not None and status.updated_ns > before.updated_ns:
        seconds = (status.updated_ns - before.updated_ns) / 1e9
        link = (
            (status.swapped_out - before.swapped_out) / seconds,
            (status.swapped_in - before.swapped_in) / seconds,
        )
    return View(
        f"process {process}  {_command(process)}",
        (time.monotonic_ns() - status.updated_ns) / 1e9,
        status.steps,
        status.last_step_ns / 1e9,
        list(status.device[: max(0, min(status.devices, _MOST_DEVICES))]),
        status,
        link,
    )


def view_of_trace(path: str) -> View:
    """The state at the end of a trace, also of one that is being written. EbbtideError if it is none."""
    from . import _report
    from ._reports import _figures, _reading

    recording = _reading.read(path)
    # A trace alone tells of a plan: other recordings know of none.
    engine = _report.summarize(path) if recording.kind == "Ebbtide trace" else {}
    devices = []
    for device in recording.devices:
        live, reserved = _figures.live_curve(device), _figures.reserved_curve(device)
        devices.append(
            DeviceStruct(
                device=device.index,
                live=int(live[-1]),
                peak_live=int(live.max()),
                reserved=0 if reserved is None else int(reserved[-1]),
                peak_reserved=0 if reserved is None else int(reserved.max()),
                rounds=sum(mark.name.startswith("round ") for mark in device.marks),
                **(_plan(engine) if device.index == engine.get("device") and device.is_served else {}),
            )
        )
    ends: list[float] = []
    if recording.devices:
        device = max(recording.devices, key=lambda device: device.states)
        user = [mark.state for mark in device.marks if mark.name == "step"]
        states = user or [mark.state for mark in device.marks if mark.name == "optimizer end"]
        ends = [float(device.times_ns[state]) / 1e9 for state in states]
        age = time.monotonic() - float(device.times_ns[-1]) / 1e9
    else:
        age = 0.0
    return View(path, max(age, 0.0), len(ends), ends[-1] - ends[-2] if len(ends) > 1 else 0.0, devices)


def _plan(engine: dict[str, Any]) -> dict[str, int]:
    """Of a trace, what tells that a plan is in force."""
    return {
        "plan_height": engine["plan_height_bytes"],
        "settled_bytes": engine["allocated_bytes"],
        "settled_planned_bytes": engine["planned_bytes"],
        "divergences": engine["diverged_allocations"],
    }


def _command(process: int) -> str:
    try:
        words = pathlib.Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return "(gone)"
    return " ".join(word.decode(errors="replace") for word in words if word)[:80]


def render(view: View) -> str:
    """The screen as text."""
    step = f"{view.step_seconds:.3f} s a step" if view.step_seconds else "no step has ended twice yet"
    lines = [f"ebbtide top  {view.title}", f"step {view.steps}, {step}; as of {view.age:.1f} s ago"]
    for device in view.devices:
        lines += _device_lines(device)
    if view.status is not None and view.status.pinned:
        lines += _host_lines(view.status, view.link)
    return "\n".join(lines) + "\n"


def _device_lines(device: DeviceStruct) -> list[str]:
    whole = max(device.peak_reserved, device.peak_live, 1)
    filled = round(_BAR * device.live / whole)
    held = max(round(_BAR * device.reserved / whole) - filled, 0)
    lines = [
        f"{device_name(device.device)}  [{'#' * filled}{'-' * held}{' ' * (_BAR - filled - held)}]  "
        f"live {size_text(device.live)}, peak {size_text(device.peak_live)}; "
        f"reserved {size_text(device.reserved)}, peak {size_text(device.peak_reserved)}"
    ]
    if device.plan_height:
        arena = f"arena {size_text(device.arena)}, " if device.arena else ""
        share = f", serves {100 * device.settled_planned_bytes / device.settled_bytes:.1f} % of bytes" if device.settled_bytes else ""
        lines.append(
            f"  {arena}plan {size_text(device.plan_height)}{share}; "
            f"{device.divergences} divergences in {device.rounds} rounds"
        )
    else:
        lines.append(f"  no plan is in force; {device.rounds} rounds")
    return lines


def _host_lines(status: StatusStruct, link: tuple[float, float] | None) -> list[str]:
    lines = [f"host  {size_text(status.host_live)} of {size_text(status.pinned)} pinned hold offloaded tensors"]
    moved = f"  link: {size_text(status.swapped_out)} out, {size_text(status.swapped_in)} in"
    if link is not None:
        moved += f"; now {size_text(int(link[0]))}/s out, {size_text(int(link[1]))}/s in"
    if status.copying_ns:
        moved += f"; {100 * status.exposed_ns / status.copying_ns:.1f} % of its time is waited for"
    return [*lines, moved]


def look(target: str, before: View | None = None) -> View:
    """`target`: a process's number, a trace's path, or empty for the only process."""
    if not target:
        processes = running()
        if len(processes) != 1:
            known = ", ".join(map(str, processes))
            raise EbbtideError(
                f"several processes run with Ebbtide: give one of {known}" if processes else "no process runs with EBBTIDE=1"
            )
        target = str(processes[0])
    if target.isdigit():
        return view_of_process(int(target), before.status if before else None)
    return view_of_trace(target)


def watch(target: str, interval: float) -> None:
    """Redraws until Ctrl-C, or until the process ends."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    view = look(target)
    process = view.status.process if view.status is not None else 0
    with Live(Text(render(view)), console=Console(), auto_refresh=False, screen=False) as live:
        while True:
            time.sleep(interval)
            if process and not _is_alive(process):
                return
            view = look(str(process) if process else target, view)
            live.update(Text(render(view)), refresh=True)
