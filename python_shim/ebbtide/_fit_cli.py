"""The table that `ebbtide fit` prints."""

from __future__ import annotations

import json
import os
import sys
import threading
from typing import Any

from rich.console import Console
from rich.table import Table

from . import _dryrun, _fit, _foresight, _native
from ._errors import EbbtideError
from ._fit import Fit, FitError, Plan

_INTERRUPTED = 130
_GIB = 1 << 30
_PIPED_WIDTH = 160


class _Found:
    """What is known so far; told from several threads."""

    def __init__(self, plan: Plan, is_quiet: bool) -> None:
        self._plan, self._is_quiet = plan, is_quiet
        self._lock = threading.Lock()
        self._fits: dict[tuple[str, str], Fit] = {}

    def say(self, line: str) -> None:
        if not self._is_quiet:
            print(f"ebbtide fit: {line}", file=sys.stderr, flush=True)

    def add(self, fit: Fit) -> None:
        with self._lock:
            self._fits[fit.device, fit.setting] = fit

    def in_order(self) -> list[Fit]:
        names = [setting.name for setting in self._plan.settings()]
        wanted = [(device, name) for device in self._plan.devices for name in names]
        with self._lock:
            return [self._fits[key] for key in wanted if key in self._fits]


def run(
    command: list[str],
    devices: list[str],
    host: str | None,
    timeout: float,
    most: int,
    step: int,
    only: list[str],
    as_json: bool,
) -> int:
    """Prints the table, returns the exit status. Raises EbbtideError for what is wrong."""
    # The stand-ins lie beside the engine, wherever that was found.
    os.environ.setdefault("EBBTIDE_NATIVE_DIR", str(_native.folder()))
    plan = Plan(command, devices, host, timeout, most, step, only)
    found = _Found(plan, is_quiet=as_json)
    status = 0
    try:
        _fit.find(plan, found.say, found.add)
    except (FitError, _dryrun.DryrunError) as error:
        if not found.in_order():
            raise EbbtideError(f"fit: {error}") from None
        print(f"ebbtide fit: {error}", file=sys.stderr)
        status = EbbtideError.exit_code
    except KeyboardInterrupt:
        status = _INTERRUPTED
    if as_json:
        print(json.dumps([_as_json(fit) for fit in found.in_order()], indent=1))
    elif fits := found.in_order():
        console = Console()
        if not console.is_terminal:
            console = Console(width=_PIPED_WIDTH)
        console.print(_table(fits))
        for line in _notes(fits):
            print(line)
    return status


def _as_json(fit: Fit) -> dict[str, Any]:
    row: dict[str, Any] = {
        "device": fit.device,
        "setting": fit.setting,
        "longest": fit.longest,
        "fails": fit.fails,
        "limit": fit.limit,
        "is_settled": fit.is_settled,
    }
    if fit.report is not None:
        row["time"] = fit.report["time"]
        row["peak_held_bytes"] = max(used["peak_bytes"] for used in fit.report["devices"])
        row["host_bytes"] = fit.report["peak_pinned_bytes"]
    return row


def _table(fits: list[Fit]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("device", "setting"):
        table.add_column(heading, no_wrap=True)
    for heading in ("longest", "gain", "limit", "peak held", "host", "step", "tokens/s", "MFU", "stalls"):
        table.add_column(heading, justify="right", no_wrap=True)
    plain = {fit.device: fit.longest for fit in fits if fit.setting == "as it is"}
    for fit in fits:
        base = plain.get(fit.device, 0)
        gain = f"{fit.longest / base:.2f}x" if base and fit.longest else "-"
        table.add_row(fit.device, fit.setting, _longest(fit), gain, fit.limit or "-", *_figures(fit))
    return table


def _longest(fit: Fit) -> str:
    if not fit.longest:
        return "none" if fit.is_settled else "?"
    return str(fit.longest) if fit.is_settled else f">= {fit.longest}"


def _notes(fits: list[Fit]) -> list[str]:
    """What the table cannot say by itself."""
    lines = []
    for fit in fits:
        if fit.fails is not None and fit.longest:
            gap = 100 * (fit.fails - fit.longest) / fit.longest
            lines.append(f"{fit.device}, {fit.setting}: {fit.longest} ran, {fit.fails} (+{gap:.1f} %) did not")
    return lines


def _figures(fit: Fit) -> tuple[str, ...]:
    if fit.report is None:
        return ("-",) * 6
    held = max(used["peak_bytes"] for used in fit.report["devices"])
    time = fit.report["time"]
    seconds = time["step_seconds"]
    stalled = 100 * _foresight.stalled_seconds(time) / seconds if seconds else 0.0
    return (
        f"{held / _GIB:.1f} GiB",
        f"{fit.report['peak_pinned_bytes'] / _GIB:.1f} GiB",
        f"{seconds:.2f} s",
        f"{time['tokens_per_second']:.0f}",
        f"{100 * time['mfu']:.1f} %",
        f"{stalled:.1f} %",
    )
