"""`ebbtide plan` and `ebbtide check`: the planner by itself, on files."""

from __future__ import annotations

import json
import math
import os
import pathlib
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from ._errors import EbbtideError, print_line
from ._sizes import parse_size

if TYPE_CHECKING:
    from ._problem import Problem

_DRAWINGS = (".svg", ".html")

ProblemArgument = Annotated[
    str,
    typer.Argument(
        metavar="PROBLEM",
        help="minimalloc's CSV, or a PyTorch memory snapshot (.pickle); also as .gz; - is stdin.",
    ),
]
CapacityOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="SIZE",
        help="Bytes of the arena, e.g. 16GiB: does it fit? Of one of several: ARENA=SIZE, once for each.",
    ),
]
DeviceOption = Annotated[
    int | None, typer.Option(min=0, max=4095, help="Which device of a snapshot that holds several.")
]


def add_to(app: typer.Typer) -> None:
    """Makes the commands part of `ebbtide`."""
    app.command()(plan)
    app.command()(check)


def plan(
    problem: ProblemArgument,
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE", help="Write the plan there, as CSV; - is stdout.")
    ] = "",
    capacity: CapacityOption = None,
    time_limit: Annotated[
        float, typer.Option(metavar="SECONDS", min=0, help="End the search after so long.")
    ] = 10.0,
    threads: Annotated[int, typer.Option(min=1, max=1024, help="Threads that search.")] = 1,
    seed: Annotated[int, typer.Option(min=0, max=2**64 - 1, help="Another search.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
    draw: Annotated[
        str, typer.Option(metavar="FILE", help="Draw the plan: FILE.svg, or FILE.html to explore.")
    ] = "",
    device: DeviceOption = None,
) -> None:
    """Find the smallest arena for buffers with sizes and lifetimes, and an offset for each.

    Prints its height and the lower bound that no plan can beat. Ctrl-C ends the search with the best
    plan so far. Exits with 0 for a plan, 1 when none fits or exists, 2 for wrong input.

    Example: ebbtide plan problem.csv -o plan.csv --time-limit 60 --draw plan.html
    """
    from . import _plan_draw, _plan_run
    from ._problem import Infeasible, Options, Problem, read_bytes, source_name

    if not math.isfinite(time_limit):
        raise EbbtideError(f"--time-limit {time_limit}: give a number of seconds")
    options = Options(time_limit, None, seed, threads)
    if draw and pathlib.Path(draw).suffix.lower() not in _DRAWINGS:
        raise EbbtideError(f"--draw {draw}: the name must end in {' or '.join(_DRAWINGS)}")
    if output == "-" and as_json:
        raise EbbtideError("-o - and --json: only one of them can go to stdout; give -o a file")
    for option, path in (("-o", output), ("--draw", draw)):
        check_writable(option, path)
    try:
        loaded = Problem(read_bytes(problem), source_name(problem), device)
        info = loaded.info()
        capacities = _set_capacities(loaded, capacity or [])
        planned = _plan_run.run(loaded, options)
    except Infeasible as error:
        if as_json:
            print(json.dumps(_plan_run.infeasible_json(), indent=2))
        raise error
    arenas = loaded.arenas()
    content = loaded.csv() if planned.fits else b""
    if output and content:
        write(output, content)
    if draw and content:
        drawing = _plan_draw.draw(content, planned, arenas, source_name(problem), capacities, draw)
        write(draw, drawing.encode())
    if info.streams > 1:
        print_line(
            "warning",
            f"{source_name(problem)}: allocations are of {info.streams} streams; in this plan they "
            "reuse each other's memory, which needs the streams to be ordered",
        )
    if as_json:
        print(json.dumps(_plan_run.as_json(planned, info.buffers, arenas), indent=2))
    else:
        text = _plan_run.as_text(planned, info.buffers, arenas, capacities)
        print(text, end="", file=sys.stderr if output == "-" else sys.stdout)
    raise typer.Exit(0 if planned.fits else 1)


def check(
    problem: ProblemArgument,
    plan: Annotated[str, typer.Argument(metavar="PLAN", help="CSV with columns id and offset.")],
    capacity: CapacityOption = None,
    device: DeviceOption = None,
) -> None:
    """Judge a plan, whoever made it: the first broken rule with the buffers that break it.

    The judge shares no code with any solver.
    Exits with 0 for a valid plan, 1 for one that is not, 2 for wrong input.

    Example: ebbtide check problem.csv plan.csv --capacity 16GiB
    """
    from . import _plan_run
    from ._problem import Problem, read_bytes, source_name

    if problem == plan == "-":
        raise EbbtideError("only one of problem and plan can be stdin")
    loaded = Problem(read_bytes(problem), source_name(problem), device)
    info = loaded.info()
    _set_capacities(loaded, capacity or [])
    height = loaded.check(read_bytes(plan), source_name(plan))
    print(
        _plan_run.checked_text(info.buffers, height, info.lower_bound_bytes, loaded.arenas()),
        end="",
    )


def _set_capacities(problem: Problem, texts: list[str]) -> dict[str, int]:
    """By the arena's name: SIZE is the only arena's, ARENA=SIZE the named one's."""
    names = [arena.name for arena in problem.arenas()] if texts else []
    capacities: dict[str, int] = {}
    for text in texts:
        name, equals, size_text = text.rpartition("=")
        size = parse_size(size_text)
        if size is None or size >= 1 << 63:
            raise EbbtideError(f"--capacity {text}: not a size; write e.g. 1048576, 512MiB or 16GiB")
        if not equals and len(names) > 1:
            raise EbbtideError(
                f"--capacity {text}: the problem has {len(names)} arenas; write e.g. {names[0]}={text}"
            )
        if not equals:
            name = names[0]
        if name not in names:
            raise EbbtideError(f"--capacity {text}: no arena {name!r}; there are {', '.join(names)}")
        if name in capacities:
            raise EbbtideError(f"--capacity {text}: the arena has a capacity already")
        capacities[name] = size
        problem.set_capacity(name, size)
    return capacities


def check_writable(option: str, path: str) -> None:
    """Before the search rather than after it."""
    folder = pathlib.Path(path or ".").parent
    if not os.access(folder, os.W_OK) or path and pathlib.Path(path).is_dir():
        raise EbbtideError(f"{option} {path}: cannot be written; give a file in a folder of yours")


def write(path: str, content: bytes) -> None:
    try:
        if path == "-":
            sys.stdout.buffer.write(content)
        else:
            pathlib.Path(path).write_bytes(content)
    except OSError as error:
        raise EbbtideError(f"{path}: {error.strerror or error}") from None
