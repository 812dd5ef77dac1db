"""Dry runs for `ebbtide fit`: started, judged, and ended when the search is over."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import os
import pathlib
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from . import _dryrun

PLACE = "{}"
STEPS = 2  # the first makes the optimizer's state; both must fit
_MOST_AT_ONCE = 4  # each takes a core and 1 to 2 GiB of this machine
_DEVICE_IS_FULL = ("OutOfMemoryError", "out of memory")
_HOST_IS_FULL = "EBBTIDE_HOST (host=)"  # what offload says when it finds no room


class FitError(Exception):
    """What keeps a fit from being found, told in one line."""


@dataclasses.dataclass(frozen=True)
class Setting:
    """Variables under which the program runs.

    `same_bytes_as`: another setting with the same tensors, told apart by its allocator alone. `compacts`: that
    can use nearly all that is not live. `begins_with`: another setting, whose answer is tried first.
    """

    name: str
    variables: Mapping[str, str]
    same_bytes_as: str | None = None
    compacts: bool = False
    begins_with: str | None = None


@dataclasses.dataclass(frozen=True)
class Run:
    """One dry run. `live` and `held` are peaks of device bytes, `host` of pinned bytes.

    Not `ok`: `limit` says of what there was too little, "device" or "host".
    """

    length: int
    ok: bool
    live: int
    held: int = 0
    host: int = 0
    limit: str = ""
    report: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class Runner:
    """Runs the program dry, a few at once; `close` ends what still runs. Thread-safe."""

    def __init__(self, command: Sequence[str], deadline: float) -> None:
        self._command, self._deadline = list(command), deadline
        self._running: set[subprocess.Popen[str]] = set()
        self._is_closed = False
        self._lock = threading.Lock()
        workers = max(1, min(_MOST_AT_ONCE, os.cpu_count() or 1))
        self._pool = concurrent.futures.ThreadPoolExecutor(workers)

    def close(self) -> None:
        with self._lock:
            self._is_closed = True
            for process in self._running:
                os.killpg(process.pid, signal.SIGKILL)
        self._pool.shutdown(wait=True, cancel_futures=True)

    def start(
        self, length: int, device: str, capacity: str | None, setting: Setting
    ) -> concurrent.futures.Future[Run]:
        """Its result raises FitError for a program that fails otherwise than for lack of memory, or
        never steps, and TimeoutError after the deadline."""
        with self._lock:
            if self._is_closed:
                raise TimeoutError
            return self._pool.submit(self._run, length, device, capacity, setting)

    def _run(self, length: int, device: str, capacity: str | None, setting: Setting) -> Run:
        with tempfile.TemporaryDirectory(prefix="ebbtide-fit-") as scratch:
            report = pathlib.Path(scratch) / "report.json"
            variables = _dryrun.environment(device, capacity, report)
            variables["EBBTIDE_DRYRUN_STEPS"] = str(STEPS)
            variables["EBBTIDE_REPORT"] = variables["EBBTIDE_OOM"] = "off"
            command = [part.replace(PLACE, str(length)) for part in self._command]
            environment = {**os.environ, **variables, **setting.variables}
            status, said = self._call(command, environment)
            found = _dryrun.read_report(report)
            if status == -signal.SIGABRT and not found:
                # A thread of autograd's that still holds the error of a full device may abort an ending interpreter.
                status, said = self._call(command, environment)
                found = _dryrun.read_report(report)
        return judged(length, status, said, found)

    def _call(self, command: list[str], environment: dict[str, str]) -> tuple[int, str]:
        left = self._deadline - time.monotonic()
        with self._lock:
            if left <= 0 or self._is_closed:
                raise TimeoutError
            try:
                process = subprocess.Popen(
                    command,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    text=True,
                    errors="replace",
                    start_new_session=True,
                )
            except OSError as error:
                raise FitError(f"{command[0]}: {error.strerror}") from None
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
        if self._is_closed:
            raise TimeoutError
        return process.returncode, said


def judged(length: int, status: int, said: str, report: Mapping[str, Any] | None) -> Run:
    """What became of a run, from its exit status, its stderr and its report. Raises FitError."""
    lines = [line for line in said.splitlines() if not line.startswith(("ebbtide", " "))]
    last = lines[-1].strip() if lines else f"status {status}"
    limit = ""
    if _HOST_IS_FULL in said and status != 0:
        limit = "host"
    elif any(words in said for words in _DEVICE_IS_FULL):
        limit = "device"
    if report is None:
        raise FitError(f"at length {length} the program used no device: {last}")
    if not report or (status != 0 and not limit):
        raise FitError(
            f"at length {length} the program fails: {last} (--most keeps lengths shorter, if that is why)"
        )
    if report["time"]["steps"] < STEPS and not limit:
        raise FitError(
            f"at length {length} the program ended after {report['time']['steps']} training steps; "
            f"fit needs {STEPS} (a backward, and an optimizer's step after it, each)"
        )
    held = max(device["peak_bytes"] for device in report["devices"])
    live = max((used["peak_allocated_bytes"] for used in report.get("torch") or []), default=held)
    return Run(length, not limit, live, held, report["peak_pinned_bytes"], limit, report)
