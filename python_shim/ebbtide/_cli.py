"""The `ebbtide` command: dryrun, doctor, from _report_cli report and top, from _plan_cli plan and check."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from . import __version__, _plan_cli, _report_cli
from ._errors import EbbtideError, print_line

_INTERRUPTED = 130  # as shells report a program that Ctrl-C ended

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="""
A memory allocator for PyTorch that watches one training iteration and plans the ones after it.

To train with it, set one variable; this command is for what comes before and after:

  EBBTIDE=1 python train.py   # train with Ebbtide

  EBBTIDE=1 EBBTIDE_TRACE=run.ebb python train.py   # and keep a trace

  ebbtide report run.ebb   # what happened, told from the trace (or a PyTorch snapshot)

  ebbtide top   # watch a process that runs with EBBTIDE=1

  ebbtide dryrun --device h200 -- python train.py   # on a simulated GPU

  ebbtide doctor   # is everything in place?

The planner works by itself, too, on anyone's buffers:

  ebbtide plan problem.csv -o plan.csv   # the smallest arena, an offset for each buffer

  ebbtide check problem.csv plan.csv   # is a plan valid?
""",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit()


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    pass


_report_cli.add_to(app)


@app.command(
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
def dryrun(
    command: Annotated[
        list[str], typer.Argument(help="The program, after --, e.g. -- python train.py")
    ],
    device: Annotated[
        str, typer.Option(help="The GPU to simulate: h200, h100-80g, a100-80g or rtx4090.")
    ] = "h200",
    capacity: Annotated[
        str, typer.Option(help="Memory of each device instead of that GPU's own, e.g. 48GiB.")
    ] = "",
    count: Annotated[int, typer.Option(help="How many devices.")] = 1,
    json_path: Annotated[
        str, typer.Option("--json", metavar="FILE", help="Write the whole report there.")
    ] = "",
) -> None:
    """Run a training program on a simulated GPU: its memory is exact, its results mean nothing.

    Shows before a GPU is rented whether a program fits. With EBBTIDE_PLAN=FILE the plan is kept,
    and the first iteration on the real GPU is served from it.

    Example: EBBTIDE=1 ebbtide dryrun --device h100-80g -- python train.py --length 65536
    """
    from . import _dryrun, _native

    # The stand-ins lie beside the engine, wherever that was found.
    os.environ.setdefault("EBBTIDE_NATIVE_DIR", str(_native.folder()))
    raise typer.Exit(_dryrun.run(command, device, capacity or None, json_path or None, count))


@app.command()
def doctor() -> None:
    """Say what Ebbtide finds here: Python, torch, native libraries, settings, devices.

    Exits with 2 when something it needs is missing.
    """
    from . import _doctor

    found = _doctor.findings()
    table = Table(box=None, show_header=False, pad_edge=False)
    for finding in found:
        mark = "[green]ok[/green]" if finding.ok else "[red]no[/red]"
        table.add_row(mark, finding.subject, escape(finding.text))
    Console().print(table)
    if not all(finding.ok for finding in found):
        raise EbbtideError("not everything is in place (see the rows marked no)")


_plan_cli.add_to(app)


def main() -> None:
    try:
        # Not standalone: what is wrong with a command line is then told in our one line too.
        sys.exit(app(standalone_mode=False) or 0)
    except EbbtideError as error:
        print_line("error", error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
    except Exception as error:
        if type(error).__name__ == "Abort":  # the parser's word for Ctrl-C
            sys.exit(_INTERRUPTED)
        # The parser's own errors; by their shape, because typer may bring a click of its own.
        if not hasattr(error, "format_message"):
            raise
        if type(error).__name__ == "NoArgsIsHelpError":
            sys.exit(EbbtideError.exit_code)  # the help has been printed
        print_line("error", f"{error.format_message()} (see ebbtide --help)")
    sys.exit(EbbtideError.exit_code)


if __name__ == "__main__":
    main()
