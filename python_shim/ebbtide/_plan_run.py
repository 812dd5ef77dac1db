"""Runs a search that can be watched and ended, and tells what it came to."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from typing import Any

from ._errors import print_line
from ._problem import Arena, Options, Planned, Problem
from ._report import size_text

_INTERRUPTED = 130  # what shells report of a program that Ctrl-C ended
_POLL_S = 0.05
_QUIET_S = 2.0  # nothing is said of a shorter search
_LINE_EVERY_S = 10.0
_TERMINAL_EVERY_S = 0.2


def run(problem: Problem, options: Options) -> Planned:
    """Plans, telling the progress on stderr. Ctrl-C ends the search, a second one the program."""
    progress = _Progress(options.time_limit)
    options.on_progress = progress.note
    outcome: list[Planned | BaseException] = []
    done = threading.Event()

    def work() -> None:
        try:
            outcome.append(problem.plan(options))
        except BaseException as error:
            outcome.append(error)
        done.set()

    def interrupt(*_: object) -> None:
        if options.stop.is_set():
            os._exit(_INTERRUPTED)  # the search may be deep in native code
        options.stop.set()  # no more: the main thread may be in the middle of printing

    # A handler runs in the main thread, and only while that runs Python: so it does not plan itself.
    before = signal.signal(signal.SIGINT, interrupt)
    try:
        threading.Thread(target=work, daemon=True).start()
        while not done.wait(_POLL_S) and not options.stop.is_set():
            progress.show()
        progress.clear()
        if options.stop.is_set():
            print_line("info", "interrupted: ending with the best plan so far")
        while not done.wait(_POLL_S):
            pass
    finally:
        signal.signal(signal.SIGINT, before)
    (result,) = outcome
    if isinstance(result, BaseException):
        raise result
    return result


class _Progress:
    """One line that is rewritten on a terminal; elsewhere a line now and then."""

    def __init__(self, time_limit: float) -> None:
        self._limit = time_limit
        self._start = time.monotonic()
        self._next = self._start + _QUIET_S
        self._best: Planned | None = None
        self._is_terminal = sys.stderr.isatty()
        self._shown = 0  # columns to clear

    def note(self, best: Planned) -> None:
        self._best = best

    def show(self) -> None:
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + (_TERMINAL_EVERY_S if self._is_terminal else _LINE_EVERY_S)
        text = f"planning, {now - self._start:.0f} s of {self._limit:g}: {self._state()}"
        if not self._is_terminal:
            print_line("info", text)
            return
        line = f"ebbtide info {text}"
        print("\r" + line.ljust(self._shown), end="", file=sys.stderr, flush=True)
        self._shown = len(line)

    def clear(self) -> None:
        if self._shown:
            print("\r" + " " * self._shown + "\r", end="", file=sys.stderr, flush=True)
            self._shown = 0

    def _state(self) -> str:
        if self._best is None or self._best.height is None:
            return "no plan yet"
        return (
            f"height {size_text(self._best.height)}, "
            f"lower bound {size_text(self._best.lower_bound)}, gap {gap_text(self._best)}"
        )


def gap_text(planned: Planned) -> str:
    """In percent, and never 0 unless it is."""
    if planned.gap is None:
        return "not known"
    digits = 2
    while planned.gap > 0 and round(100 * planned.gap, digits) == 0 and digits < 12:
        digits += 2
    return f"{100 * planned.gap:.{digits}f} %"


def as_json(planned: Planned, buffers: int, arenas: list[Arena]) -> dict[str, Any]:
    """Of several arenas, the sums, and what is true of all."""
    told: dict[str, Any] = {
        "height": planned.height,
        "lower_bound": planned.lower_bound,
        "optimal": planned.is_lowest,
        "seconds": planned.seconds,
        "buffers": buffers,
        "status": planned.status,
    }
    if are_named(arenas):
        told["arenas"] = [
            {
                "name": arena.name,
                "height": arena.plan.height,
                "lower_bound": arena.plan.lower_bound,
                "optimal": arena.plan.is_lowest,
                "buffers": arena.buffers,
                "status": arena.plan.status,
            }
            for arena in arenas
        ]
    return told


def are_named(arenas: list[Arena]) -> bool:
    return len(arenas) > 1 or arenas[0].name != ""


def infeasible_json() -> dict[str, Any]:
    """Of a problem that no arena of any size solves."""
    return {
        "height": None,
        "lower_bound": None,
        "optimal": False,
        "seconds": 0.0,
        "buffers": None,
        "status": "infeasible",
    }


def as_text(
    planned: Planned, buffers: int, arenas: list[Arena], capacities: dict[str, int]
) -> str:
    rows = [("buffers", str(buffers))]
    if planned.height is not None:
        rows.append(("height", _exact(planned.height)))
    rows.append(("lower bound", _exact(planned.lower_bound)))
    rows.append(("gap", gap_text(planned)))
    rows.append(("proved optimal", "yes" if planned.is_lowest else "no"))
    rows.append(("seconds", f"{planned.seconds:.3f}"))
    rows += _arena_rows(arenas)
    for arena in arenas:
        if arena.name in capacities:
            where = f" in {arena.name}" if are_named(arenas) else ""
            fits = f"fits {size_text(capacities[arena.name])}{where}"
            rows.append((fits, _ANSWERS.get(arena.plan.status, "yes")))
    return _table(rows)


_ANSWERS = {
    "infeasible": "no, proved: no plan does",
    "unknown": "not found; a longer --time-limit may find one",
}


def _arena_rows(arenas: list[Arena]) -> list[tuple[str, str]]:
    if not are_named(arenas):
        return []
    rows = []
    for arena in arenas:
        height = "no plan" if arena.plan.height is None else _exact(arena.plan.height)
        rows.append((f"arena {arena.name}", f"{height}, gap {gap_text(arena.plan)}"))
    return rows


def checked_text(buffers: int, height: int, lower_bound: int, arenas: list[Arena]) -> str:
    gap = Planned(height, lower_bound, 0.0, "feasible")
    return _table(
        [
            ("valid", "yes"),
            ("buffers", str(buffers)),
            ("height", _exact(height)),
            ("lower bound", _exact(lower_bound)),
            ("gap", gap_text(gap)),
            *_arena_rows(arenas),
        ]
    )


def _exact(size: int) -> str:
    return f"{size} bytes ({size_text(size)})" if size >= 1024 else f"{size} bytes"


def _table(rows: list[tuple[str, str]]) -> str:
    width = max(len(name) for name, _ in rows) + 2
    return "".join(f"{name.ljust(width)}{value}\n" for name, value in rows)
