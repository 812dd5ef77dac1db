"""`ebbtide fit`: the longest sequence that fits a device, by dry runs and a parametric plan.

Memory does not depend on the device, so for each setting the program runs at a few lengths on a device
of any size first; a quadratic through its peaks then says which length should just fit each device.
That length is tried with the device's real memory, and others from there: what is told has run.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from . import _devices, _dryrun
from ._sizes import parse_size

PLACE = "{}"
_STEPS = 2  # the first makes the optimizer's state; both must fit
_ANY_SIZE = "2TiB"
_FIRST_LENGTHS = (2048, 8192, 32768)
_TRIES = 7  # dry runs that confirm one device and setting, at most
_MOST_GROWTH = 4  # from a length that ran to the next: budgets and thresholds bend the curve
_SETTLED = 0.03  # a fit and a failure as near as this end the search
_LIKELY = 0.98  # of the predicted length: what allocators waste


class FitError(Exception):
    """What keeps a fit from being found, told in one line."""


@dataclasses.dataclass(frozen=True)
class Setting:
    """Variables under which the program runs."""

    name: str
    variables: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Run:
    """One dry run; `peak` is torch's live bytes. Not `ok`: it ran out of memory."""

    length: int
    ok: bool
    peak: int
    report: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Fit:
    """`longest` ran, 0 if none did; `fails` is the shortest tried that did not."""

    device: str
    setting: str
    longest: int
    fails: int | None
    report: Mapping[str, Any] | None


def settings(host: str | None, only: Sequence[str] = ()) -> list[Setting]:
    """As the program is, with torch's better allocator, and with offload; or those named. FitError."""
    budget = {"EBBTIDE_HOST": host} if host else {}
    expandable = {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}
    offload = {**expandable, "EBBTIDE_OFFLOAD": "0", **budget}
    found = [
        Setting("as it is", {}),
        Setting("expandable segments", expandable),
        Setting("offload", offload),
    ]
    known = [setting.name for setting in found]
    for name in only:
        if name not in known:
            raise FitError(f"--setting {name}: unknown setting; allowed: {', '.join(known)}")
    return [setting for setting in found if not only or setting.name in only]


class Curve:
    """Peak bytes by length: a polynomial through the longest that ran, of at most the second degree."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self._peaks = {run.length: float(run.peak) for run in runs if run.ok}

    def add(self, run: Run) -> None:
        self._peaks[run.length] = float(run.peak)

    def copy(self) -> Curve:
        twin = Curve(())
        twin._peaks = dict(self._peaks)
        return twin

    def __call__(self, length: float) -> float:
        points = sorted(self._peaks.items())[-3:]
        total = 0.0
        for i, (x, y) in enumerate(points):
            for j, (other, _) in enumerate(points):
                if i != j:
                    y *= (length - other) / (x - other)
            total += y
        return total

    def longest(self, capacity: float, most: int) -> int:
        """The largest length whose peak is at most `capacity`; the curve is taken to rise."""
        low, high = 0, most
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self(middle) <= capacity else (low, middle)
        return low


class Runner:
    """Runs the program dry, several at once, and ends what still runs when it is closed."""

    def __init__(self, command: Sequence[str], deadline: float) -> None:
        self._command, self._deadline = list(command), deadline
        self._running: set[subprocess.Popen[str]] = set()
        self._lock = threading.Lock()

    def close(self) -> None:
        with self._lock:
            for process in self._running:
                os.killpg(process.pid, signal.SIGKILL)

    def run(self, length: int, device: str, capacity: str | None, setting: Setting) -> Run:
        """Raises FitError for a program that fails otherwise than for lack of memory, or never steps."""
        with tempfile.TemporaryDirectory(prefix="ebbtide-fit-") as scratch:
            report = pathlib.Path(scratch) / "report.json"
            variables = _dryrun.environment(device, capacity, report)
            variables["EBBTIDE_DRYRUN_STEPS"] = str(_STEPS)
            variables["EBBTIDE_REPORT"] = "off"
            command = [part.replace(PLACE, str(length)) for part in self._command]
            status, said = self._call(command, {**os.environ, **variables, **setting.variables})
            found = json.loads(report.read_text()) if report.exists() else None
        return _judged(length, status, said, found)

    def _call(self, command: list[str], environment: dict[str, str]) -> tuple[int, str]:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        process = subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        with self._lock:
            self._running.add(process)
        try:
            _, said = process.communicate(timeout=left)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            raise TimeoutError from None
        finally:
            with self._lock:
                self._running.discard(process)
        return process.returncode, said


def _judged(length: int, status: int, said: str, report: Mapping[str, Any] | None) -> Run:
    lines = [line for line in said.splitlines() if not line.startswith(("ebbtide", " "))]
    is_out = "OutOfMemoryError" in said or "out of memory" in said
    if report is None:
        last = f": {lines[-1].strip()}" if lines else ""
        raise FitError(f"at length {length} the program used no device (status {status}){last}")
    if status != 0 and not is_out:
        last = lines[-1].strip() if lines else f"status {status}"
        raise FitError(f"at length {length} the program fails: {last}")
    if report["time"]["steps"] < _STEPS and not is_out:
        raise FitError(
            f"at length {length} the program ended after {report['time']['steps']} training steps; "
            f"fit needs {_STEPS} (a backward, and an optimizer's step after it, each)"
        )
    live = [device["peak_allocated_bytes"] for device in report.get("torch") or []]
    held = max(device["peak_bytes"] for device in report["devices"])
    return Run(length, status == 0 and not is_out, max(live, default=held), report)


def measure(runner: Runner, chosen: Setting, device: str, lengths: Sequence[int]) -> list[Run]:
    """The setting's peaks at the first lengths, without a limit."""
    return [runner.run(length, device, _ANY_SIZE, chosen) for length in lengths]


def search(
    curve: Curve, capacity: int, attempt: Callable[[int], Run], most: int, step: int
) -> tuple[Run | None, int | None]:
    """The longest that ran, and the shortest that did not. Lengths are multiples of `step`."""
    best: Run | None = None
    fails: int | None = None
    length = curve.longest(capacity * _LIKELY, most)
    for _ in range(_TRIES):
        length = max(step, length // step * step)
        if (best is not None and length <= best.length) or (fails is not None and length >= fails):
            break
        run = attempt(length)
        if run.ok:
            best = run
            curve.add(run)
            if fails is None:
                length = min(curve.longest(capacity * _LIKELY, most), length * _MOST_GROWTH)
                if length <= best.length * (1 + _SETTLED):
                    break
            else:
                length = (length + fails) // 2
        else:
            fails = length
            length = int(length * 0.9) if best is None else (best.length + length) // 2
        if best is not None and fails is not None and fails - best.length <= _SETTLED * fails:
            break
    return best, fails


@dataclasses.dataclass(frozen=True)
class Plan:
    """What to find out. `most` is the longest length of interest, `step` divides all lengths."""

    command: Sequence[str]
    devices: Sequence[str]
    host: str | None = None
    timeout: float = 600.0
    most: int = 1 << 24
    step: int = 1024
    only: Sequence[str] = ()  # settings; empty: all

    def settings(self) -> list[Setting]:
        return settings(self.host, self.only)


def check(plan: Plan) -> None:
    """Raises FitError for what cannot be searched."""
    if not plan.command:
        raise FitError("no command given: ebbtide fit -- python train.py --seq {}")
    if not any(PLACE in part for part in plan.command):
        raise FitError(
            "the command names no length: write {} where it belongs, e.g. "
            "ebbtide fit -- python train.py --seq {}"
        )
    if plan.host is not None and parse_size(plan.host) is None:
        raise FitError(f"--host {plan.host}: not a size; write e.g. 128GiB")
    plan.settings()
    for device in plan.devices:
        try:
            _devices.load(device)
        except _devices.DeviceFileError as error:
            raise FitError(f"--device {device}: {error}") from None
    _dryrun.check_torch()


def find(plan: Plan, say: Callable[[str], None], found: Callable[[Fit], None]) -> None:
    """Calls `found` for each setting and device as soon as it is known. Raises FitError.

    `say` gets a line of progress. When the time is over, what is known by then has been told.
    """
    check(plan)
    runner = Runner(plan.command, time.monotonic() + plan.timeout)
    workers = max(1, min(2, os.cpu_count() or 1))
    chosen = plan.settings()
    pool = concurrent.futures.ThreadPoolExecutor(workers)
    try:
        jobs = {pool.submit(_one_setting, plan, runner, s, say, found): s for s in chosen}
        for job in concurrent.futures.as_completed(jobs):
            job.result()
    except TimeoutError:
        say(f"the time is over ({plan.timeout:.0f} s, --timeout): not everything was tried")
    finally:
        runner.close()
        pool.shutdown(wait=True, cancel_futures=True)


def _one_setting(
    plan: Plan,
    runner: Runner,
    chosen: Setting,
    say: Callable[[str], None],
    found: Callable[[Fit], None],
) -> None:
    first = [length for length in _FIRST_LENGTHS if length <= plan.most] or [plan.most]
    say(f"{chosen.name}: peaks at lengths {', '.join(map(str, first))}")
    curve = Curve(measure(runner, chosen, plan.devices[0], first))
    for device in plan.devices:
        capacity = _devices.load(device).memory_bytes

        def attempt(length: int, device: str = device) -> Run:
            run = runner.run(length, device, None, chosen)
            say(f"{chosen.name}, {device}: {length} {'fits' if run.ok else 'does not fit'}")
            return run

        best, fails = search(curve.copy(), capacity, attempt, plan.most, plan.step)
        found(
            Fit(
                device,
                chosen.name,
                0 if best is None else best.length,
                fails,
                None if best is None else best.report,
            )
        )
