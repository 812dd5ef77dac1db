"""`ebbtide report`: what a recording of memory tells, whoever wrote it; `ebbtide top`: a process as it runs."""

from __future__ import annotations

import math
import pathlib
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ._errors import EbbtideError, print_line

if TYPE_CHECKING:
    from ._reports._model import Device, Recording
    from ._reports._planned import Saving


def add_to(app: typer.Typer) -> None:
    """Makes the commands part of `ebbtide`."""
    app.command()(report)
    app.command()(top)


def report(
    file: Annotated[
        str,
        typer.Argument(help="A trace written through EBBTIDE_TRACE, a PyTorch memory snapshot (.pickle), an RMM log (.csv); - is stdin."),
    ],
    peak: Annotated[bool, typer.Option("--peak", help="The peak: where the bytes are, what lives.")] = False,
    owners: Annotated[bool, typer.Option("--owners", help="Who holds the peak, and from which lines of the program, where stacks were recorded (EBBTIDE_TRACE_STACKS).")] = False,
    segments: Annotated[bool, typer.Option("--segments", help="The segments at the peak, and what is free in them.")] = False,
    timeline: Annotated[bool, typer.Option("--timeline", help="Live and reserved bytes over time.")] = False,
    streams: Annotated[bool, typer.Option("--streams", help="Kernels and copies by stream, and whose memory is not torch's (EBBTIDE_CUPTI=1).")] = False,
    swaps: Annotated[bool, typer.Option("--swaps", help="Swaps to host memory, and what became of each layer's tensors.")] = False,
    oom: Annotated[bool, typer.Option("--oom", help="Why it ran out of memory: the last failure in the file.")] = False,
    compare: Annotated[str, typer.Option(metavar="OTHER", help="Set beside another file of any of these kinds, also in the page: before and after.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
    html: Annotated[str, typer.Option(metavar="OUT", help="Write a page to explore: one file, no network.")] = "",
    perfetto: Annotated[str, typer.Option(metavar="OUT", help="Write a file for ui.perfetto.dev.")] = "",
    device: Annotated[
        int | None, typer.Option(min=-1, max=4095, help="Which device of several, -1 for host memory; default: the one with the highest peak.")
    ] = None,
    time_limit: Annotated[
        float, typer.Option(metavar="SECONDS", min=0, help="For the plan that tells what Ebbtide would save; 0: no plan.")
    ] = 2.0,
) -> None:
    """Print what a recording of memory tells: peaks, fragmentation, owners, and what Ebbtide would have saved.

    Example: EBBTIDE=1 EBBTIDE_TRACE=run.ebb python train.py && ebbtide report run.ebb

    Example: ebbtide report snapshot.pickle --peak --html snapshot.html
    """
    from ._plan_cli import check_writable, write
    from ._reports import _activity_tables, _console, _json_form, _page, _perfetto, _tables

    if not math.isfinite(time_limit):
        raise EbbtideError(f"--time-limit {time_limit}: give a number of seconds")
    for option, path in (("--html", html), ("--perfetto", perfetto)):
        check_writable(option, path)
    recording, shown, engine = _read(file, device)
    others = recording.devices if as_json else [shown]
    savings = {each.index: _saving(each, time_limit) for each in others}
    saving = savings[shown.index]
    pair = None
    if compare:
        other, beside, _ = _read(compare, device)
        names = (_tables.Compared(file, shown, saving), _tables.Compared(compare, beside, _saving(beside, time_limit)))
        pair = (names[0], names[1])
    if html:
        write(html, _page.render(recording, shown, saving, None if pair is None else pair[1]).encode())
    if perfetto:
        write(perfetto, _perfetto.render(recording).encode())
    if as_json:
        print(_json_form.render(recording, savings, engine))
        return
    print(_five_lines(recording, shown, saving, engine), end="")
    for note in shown.notes:
        print_line("info", f"{file}: {note}")
    if oom:
        from ._reports import _out_of_memory

        print(_out_of_memory.explain(recording, shown, saving), end="")
    for wanted, view in (
        (peak, _tables.peak),
        (owners, _tables.owners),
        (segments, _tables.segments),
        (timeline, _tables.over_time),
        (streams, _activity_tables.streams_text),
        (swaps, _activity_tables.swaps_text),
    ):
        if wanted:
            print(view(shown), end="")
    if pair is not None:
        print(_tables.compared(*pair), end="")


def top(
    target: Annotated[
        str, typer.Argument(help="A process's number, or a trace; without it the only process that runs with EBBTIDE=1.")
    ] = "",
    interval: Annotated[float, typer.Option(min=0.1, max=3600, help="Seconds between two looks.")] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Print one look and end.")] = False,
) -> None:
    """Watch a training process: live bytes, arena, host memory, link, stalls, step time. Ctrl-C ends.

    It reads a page of shared memory that the process fills; the process is not slowed down by it.

    Example: ebbtide top 12345
    """
    from . import _top

    if once:
        print(_top.render(_top.look(target)), end="")
    else:
        _top.watch(target, interval)


def _read(path: str, index: int | None) -> tuple[Recording, Device, dict[str, Any] | None]:
    """The recording, the device to show, and of our own traces what the engine counted."""
    from . import _report
    from ._reports import _console, _reading

    recording = _reading.read(path)
    shown = _console.busiest(recording, index)
    if shown is None:
        if index is not None and recording.devices:
            names = ", ".join(str(device.index) for device in recording.devices)
            raise EbbtideError(f"--device {index}: not in {path}; there is {names}")
        because = f": it {recording.damage}" if recording.damage else ""
        article = "an" if recording.kind[0] in "AEIOR" else "a"
        raise EbbtideError(f"{path}: {article} {recording.kind} without any event{because}")
    is_ours = recording.kind == "Ebbtide trace"
    return recording, shown, _report.summarize(pathlib.Path(path)) if is_ours else None


def _saving(device: Device, time_limit: float) -> Saving | None:
    from ._reports import _planned

    return _planned.saving(device, time_limit)


def _five_lines(
    recording: Recording, device: Device, saving: Saving | None, engine: dict[str, Any] | None
) -> str:
    from . import _report
    from ._reports import _console, _figures

    if engine is None or engine["device"] != device.index:
        return _console.five_lines(recording, device, saving)
    if device.segments_are_whole:  # else a trace knows what was held at the ends of rounds alone
        # The engine counts what it was asked for; what is smaller than it plans is torch's alone, and lives, too.
        live = int(_figures.live_curve(device).max())
        engine = {**engine, "peak_live_bytes": live, "peak_reserved_bytes": _figures.peak_reserved(device)}
    lines = _report.render_text(engine).splitlines()
    lines[-1] = _console.saving_line(saving, device.is_served)
    return "\n".join(lines) + "\n"
