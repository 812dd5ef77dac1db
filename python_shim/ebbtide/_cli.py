"""The `ebbtide` command: dryrun, doctor, from _report_cli report and top, from _plan_cli plan and check."""

from __future__ import annotations

import os
import pathlib
import sys
from typing import Annotated, Optional

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

  ebbtide fit --device h200 -- python train.py --seq {}   # the longest sequence that fits

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
        str, typer.Option(help="The GPU to simulate, e.g. h200, or the path of a device file.")
    ] = "h200",
    capacity: Annotated[
        str, typer.Option(help="Memory of each device instead of that GPU's own, e.g. 48GiB.")
    ] = "",
    count: Annotated[int, typer.Option(help="How many devices.")] = 1,
    json_path: Annotated[
        str, typer.Option("--json", metavar="FILE", help="Write the whole report there.")
    ] = "",
    timeline: Annotated[
        str,
        typer.Option(
            metavar="FILE", help="Draw streams and memory there: FILE.svg, FILE.html, or FILE.json for Perfetto."
        ),
    ] = "",
    steps: Annotated[
        int, typer.Option(min=0, help="End the program after so many training steps; 0: do not.")
    ] = 0,
    ranks: Annotated[
        Optional[int],  # noqa: UP045 - the parser reads it at run time
        typer.Option(help="Ranks of a torch.distributed program; no network, no other process."),
    ] = None,
    rank: Annotated[
        str, typer.Option(help="Which of them runs: a number, or all, one after the other.")
    ] = "0",
    typical: Annotated[
        str,
        typer.Option(
            metavar="NAME=VALUE,...",
            help="What stands for values that are not computed: number (1; a loss, a norm), low and high (0, 1; "
            "elements of larger tensors), choice (even, first; routers, argmax), found_inf (0).",
        ),
    ] = "",
) -> None:
    """Run a training program on a simulated GPU: memory is exact, time is predicted, results are none.

    Shows before a GPU is rented whether a program fits, how long a step takes and where time goes. With EBBTIDE_PLAN=FILE the plan is kept,
    and the first iteration on the real GPU is served from it.

    Example: EBBTIDE=1 ebbtide dryrun --device h100-80g -- python train.py --length 65536

    Example: ebbtide dryrun --ranks 8 -- python train_fsdp.py
    """
    from . import _dryrun, _native

    # The stand-ins lie beside the engine, wherever that was found.
    os.environ.setdefault("EBBTIDE_NATIVE_DIR", str(_native.folder()))
    raise typer.Exit(
        _dryrun.run(
            command,
            device,
            capacity or None,
            json_path or None,
            count,
            timeline or None,
            steps,
            ranks,
            rank,
            typical,
        )
    )


@app.command(
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
def fit(
    command: Annotated[
        list[str], typer.Argument(help="The program, after --, with {} for the length.")
    ],
    device: Annotated[
        list[str], typer.Option(help="A GPU's name or device file; may be given again.")
    ] = ["h200"],  # noqa: B006 - the parser's form; never changed
    host: Annotated[str, typer.Option(help="Host memory for offload, e.g. 128GiB.")] = "",
    timeout: Annotated[float, typer.Option(help="Seconds for all of it.")] = 600.0,
    most: Annotated[int, typer.Option(help="The longest length of interest.")] = 1 << 24,
    step: Annotated[int, typer.Option(help="Lengths are multiples of this.")] = 1024,
    setting: Annotated[
        list[str],
        typer.Option(help="Only this: as it is, expandable segments, EBBTIDE=1 or offload; again for more."),
    ] = [],  # noqa: B006
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Find the longest sequence that fits, for each device and setting, without a GPU.

    Runs the program dry at a few lengths, works out from its peaks what should fit, and tries that.
    Ctrl-C prints what is known by then.

    Example: ebbtide fit --device h200 --host 128GiB -- python train.py --seq {}
    """
    from . import _fit_cli

    raise typer.Exit(_fit_cli.run(command, device, host or None, timeout, most, step, setting, as_json))


@app.command()
def calibrate(
    like: Annotated[str, typer.Option(help="The device file whose peaks are this GPU's.")],
    output: Annotated[
        pathlib.Path, typer.Option("--output", "-o", help="The device file to write.")
    ] = pathlib.Path("device.json"),
) -> None:
    """Measure this machine's GPU and write a device file with the shares of its peaks that it reaches.

    Takes some seconds and 8 GiB of device memory. `ebbtide dryrun --device ./device.json` then
    predicts with what was measured.

    Example: ebbtide calibrate --like h200 -o mine.json
    """
    from . import _calibrate

    for name, share in _calibrate.calibrate(like, output).items():
        print(f"{name} {share:.4f}")
    print(f"written to {output}")


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
