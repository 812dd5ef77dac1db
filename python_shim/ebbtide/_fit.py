"""`ebbtide fit`: the longest sequence that fits a device, by dry runs and a parametric prediction.

Bytes do not depend on the device, so for each setting the program runs at a few lengths on a device
of any size first; from its peaks follows which length should just fit each device (_fit_search).
That length is tried with the device's real memory, and others from there: what is told has run.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from . import _devices, _dryrun
from ._fit_runs import PLACE, FitError, Run, Runner, Setting
from ._fit_search import Search
from ._sizes import forgotten_unit, parse_size

_ANY_SIZE = "2TiB"
_FIRST_LENGTHS = (8192, 32768, 131072)


@dataclasses.dataclass(frozen=True)
class Fit:
    """`longest` ran, 0 if none did; `fails` is the shortest tried that did not, for lack of `limit`.

    Not `is_settled`: the search goes on, or was ended before they were close.
    """

    device: str
    setting: str
    longest: int
    fails: int | None
    limit: str
    report: Mapping[str, Any] | None
    is_settled: bool


def settings(host: str | None, only: Sequence[str] = ()) -> list[Setting]:
    """As the program is, with torch's better allocator, with ours, and with offload; or those named. FitError."""
    budget = {"EBBTIDE_HOST": host} if host else {}
    expandable = {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}
    found = [
        Setting("as it is", {}),
        Setting("expandable segments", expandable, same_bytes_as="as it is", compacts=True),
        Setting(
            "EBBTIDE=1",
            # Strict: or a run without Ebbtide could pass for one with it.
            {"EBBTIDE": "1", "EBBTIDE_STRICT": "1"},
            same_bytes_as="as it is",
            compacts=True,
            begins_with="expandable segments",
        ),
        Setting("offload", {**expandable, "EBBTIDE_OFFLOAD": "0", **budget}, compacts=True),
    ]
    known = [setting.name for setting in found]
    for name in only:
        if name not in known:
            raise FitError(f"--setting {name}: unknown setting; allowed: {', '.join(known)}")
    return [setting for setting in found if not only or setting.name in only]


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

    def first_lengths(self) -> list[int]:
        """Lengths that show how the peaks grow; a short `most` gets shorter ones."""
        lengths = [length for length in _FIRST_LENGTHS if length <= self.most]
        return lengths or sorted({max(1, self.most // part) for part in (4, 2, 1)})


def check(plan: Plan) -> None:
    """Raises FitError for what cannot be searched."""
    if not plan.command:
        raise FitError("no command given: ebbtide fit -- python train.py --seq {}")
    if plan.command[0].startswith("-"):
        raise FitError(f"{plan.command[0]}: no such option (ebbtide fit --help); the program comes after --")
    if not any(PLACE in part for part in plan.command):
        raise FitError(
            "the command names no length: write {} where it belongs, e.g. "
            "ebbtide fit -- python train.py --seq {}"
        )
    if plan.host is not None and not parse_size(plan.host):
        raise FitError(f"--host {plan.host}: not a size; write e.g. 128GiB")
    if plan.host is not None and (hint := forgotten_unit(plan.host)):
        raise FitError(f"--host {plan.host}: {hint}")
    try:
        _dryrun.check_program(plan.command[0])
    except _dryrun.DryrunError as error:
        raise FitError(str(error)) from None
    for option, number in (("--most", plan.most), ("--step", plan.step), ("--timeout", plan.timeout)):
        if number <= 0:
            raise FitError(f"{option} {number}: write a number above 0")
    if plan.step > plan.most:
        raise FitError(f"--step {plan.step} is more than --most {plan.most}: no length is left")
    plan.settings()
    for device in plan.devices:
        try:
            _devices.load(device)
        except _devices.DeviceFileError as error:
            raise FitError(f"--device {device}: {error}") from None
    _dryrun.check_torch()
    _dryrun.check_settings(_dryrun.environment(plan.devices[0]))


class _Answers:
    """Where each setting's search ended on each device, for searches that begin there. Thread-safe."""

    def __init__(self, plan: Plan) -> None:
        self._ends: dict[tuple[str, str], concurrent.futures.Future[list[int]]] = {
            (setting.name, device): concurrent.futures.Future()
            for setting in plan.settings()
            for device in plan.devices
        }

    def tell(self, setting: str, device: str, ends: list[int]) -> None:
        if not self._ends[setting, device].done():
            self._ends[setting, device].set_result(ends)

    def give_up(self, setting: str) -> None:
        """Nobody waits for what is not coming any more."""
        for name, device in self._ends:
            if name == setting:
                self.tell(name, device, [])

    def wait(self, setting: str | None, device: str) -> list[int]:
        """Empty if that setting is not searched, or has no answer."""
        found = self._ends.get((setting or "", device))
        return found.result() if found is not None else []


class _Measured:
    """Peaks at the first lengths, by setting; settings that need the same bytes share one's runs."""

    def __init__(self, plan: Plan, runner: Runner) -> None:
        chosen = plan.settings()
        sources = {s.name: s for s in chosen if s.same_bytes_as not in {o.name for o in chosen}}
        # Longest runs first: offload's take most time, and others fit in beside them.
        self._jobs = {
            name: [
                runner.start(length, plan.devices[0], _ANY_SIZE, setting)
                for length in plan.first_lengths()
            ]
            for name, setting in reversed(sources.items())
        }

    def runs(self, setting: Setting) -> list[Run]:
        """Waits for them. Raises FitError."""
        name = setting.name if setting.name in self._jobs else setting.same_bytes_as
        runs = [run for job in self._jobs[str(name)] if (run := job.result()).ok]
        if not runs:
            raise FitError(f"{setting.name}: not even the first lengths fit into {_ANY_SIZE}")
        return runs


def find(plan: Plan, say: Callable[[str], None], found: Callable[[Fit], None]) -> None:
    """Calls `found` for each setting and device whenever more is known, from several threads.

    `say` gets a line of progress. Raises FitError; when the time is over or an exception comes
    (Ctrl-C), what is known by then has been told.
    """
    check(plan)
    begin = time.monotonic()
    runner = Runner(plan.command, begin + plan.timeout)
    lock = threading.Lock()

    def timed(line: str) -> None:
        with lock:
            say(f"{time.monotonic() - begin:4.0f} s  {line}")

    chosen = plan.settings()
    answers = _Answers(plan)
    pool = concurrent.futures.ThreadPoolExecutor(len(chosen))
    try:
        timed(f"peaks at lengths {', '.join(map(str, plan.first_lengths()))}, without a limit")
        measured = _Measured(plan, runner)
        jobs = {
            pool.submit(_Setting(plan, runner, setting, answers, timed, found).find, measured): setting
            for setting in reversed(chosen)
        }
        _wait(jobs, timed)
    except TimeoutError:
        timed(f"the time is over ({plan.timeout:.0f} s, --timeout): not everything was tried")
    finally:
        runner.close()
        pool.shutdown(wait=True, cancel_futures=True)


def _wait(jobs: Mapping[concurrent.futures.Future[None], Setting], say: Callable[[str], None]) -> None:
    """Raises FitError if the program fails as it is, or under every setting."""
    failed = 0
    for job in concurrent.futures.as_completed(jobs):
        try:
            job.result()
        except FitError as error:
            failed += 1
            if not jobs[job].variables or failed == len(jobs):
                raise
            say(f"{jobs[job].name}: {error}")


class _Setting:
    """One setting's search over the devices."""

    def __init__(
        self,
        plan: Plan,
        runner: Runner,
        setting: Setting,
        answers: _Answers,
        say: Callable[[str], None],
        found: Callable[[Fit], None],
    ) -> None:
        self._plan, self._runner, self._setting, self._answers = plan, runner, setting, answers
        self._say, self._found = say, found

    def find(self, measured: _Measured) -> None:
        try:
            self._find(measured)
        finally:
            self._answers.give_up(self._setting.name)

    def _find(self, measured: _Measured) -> None:
        runs = measured.runs(self._setting)
        self._say(f"{self._setting.name}: needs {_gib(runs[0].live)} at {runs[0].length}, "
                  f"{_gib(runs[-1].live)} at {runs[-1].length}")
        known: dict[int, list[int]] = {}  # by bytes of memory: what ended the search
        for device in self._plan.devices:
            capacity = _devices.load(device).memory_bytes
            search = Search(
                runs,
                capacity,
                self._budget(),
                self._plan.most,
                self._plan.step,
                compacts=self._setting.compacts,
                known=known.get(capacity) or self._answers.wait(self._setting.begins_with, device),
            )
            self._run(search, device)
            ends = [run.length for run in (search.best, search.fails) if run is not None]
            known.setdefault(capacity, ends)
            self._answers.tell(self._setting.name, device, ends)

    def _budget(self) -> int | None:
        text = self._setting.variables.get("EBBTIDE_HOST")
        return parse_size(text) if text else None

    def _run(self, search: Search, device: str) -> None:
        while lengths := search.propose():
            jobs = [self._runner.start(length, device, None, self._setting) for length in lengths]
            for job in jobs:  # as_completed would wait for ever for those that close() cancels
                run = job.result()
                search.tell(run)
                verdict = "fits" if run.ok else f"does not fit ({run.limit} memory)"
                self._say(f"{self._setting.name}, {device}: {run.length} {verdict}")
                self._tell(search, device, is_settled=False)
        self._tell(search, device, is_settled=True)

    def _tell(self, search: Search, device: str, is_settled: bool) -> None:
        best, fails = search.best, search.fails
        self._found(
            Fit(
                device,
                self._setting.name,
                best.length if best else 0,
                fails.length if fails else None,
                fails.limit if fails else "",
                best.report if best else None,
                is_settled,
            )
        )


def _gib(size: int) -> str:
    return f"{size / (1 << 30):.1f} GiB"
