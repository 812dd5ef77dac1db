"""The tests that are marked gpu, as a part of scripts/gpu-check: counts, and what failed with its words."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import math
import os
import pathlib
import signal
import subprocess
import sys
import time
from typing import Any

import gpu_outcomes

ROOT = pathlib.Path(__file__).resolve().parents[2]
_PROCESSES = 4
# What judges times of the device runs beside nothing else.
_GROUPS = (("gpu and not alone", _PROCESSES), ("gpu and alone", 1))
_OUT_OF_TIME = "out of time"
_NO_TESTS = 5  # pytest's status


def counts_of(told: pathlib.Path) -> dict[str, Any]:
    """Of the lines that gpu_outcomes wrote. What began and did not end has failed."""
    tests: dict[str, dict[str, str]] = {}
    for line in told.read_text().splitlines() if told.exists() else ():
        event = json.loads(line)
        # A test that failed or was skipped has a teardown, too.
        if tests.get(event["test"], {}).get("outcome") not in ("failed", "skipped") or event["outcome"] == "failed":
            tests[event["test"]] = event
    named = {outcome: [test for test in tests.values() if test["outcome"] == outcome] for outcome in ("skipped", "failed", "begun")}
    failures = [{"test": test["test"], "text": test["text"]} for test in named["failed"]]
    failures += [{"test": test["test"], "text": "it did not end"} for test in named["begun"]]
    return {
        "passed": len(tests) - len(named["skipped"]) - len(failures),
        "failed": len(failures),
        "skipped": len(named["skipped"]),
        "failures": failures,
        "skips": [f"{test['test']}: {test['text']}" for test in named["skipped"]],
    }


def _pytest(marked: str, processes: int, told: pathlib.Path, seconds: float, tests: str) -> str:
    """Why it did not come to its end; empty where it did, whatever failed in it."""
    if seconds <= 0:
        return _OUT_OF_TIME
    command = [sys.executable, "-m", "pytest", "-q", "--tb=short", "-p", gpu_outcomes.__name__, "-m", marked]
    if processes > 1 and importlib.util.find_spec("xdist"):
        command += ["-n", str(processes), "--dist", "worksteal"]
    paths = [str(ROOT / "scripts" / "lib"), *filter(None, [os.environ.get("PYTHONPATH")])]
    # Whoever runs this under pytest: its workers' names are none of these tests'.
    own = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment = own | {"PYTHONPATH": os.pathsep.join(paths), gpu_outcomes.FILE: str(told)}
    process = subprocess.Popen([*command, tests], cwd=ROOT, env=environment, start_new_session=True)
    try:
        status = process.wait(None if seconds == math.inf else seconds)
        return "" if status in (0, 1, _NO_TESTS) else f"pytest ended with status {status}"
    except subprocess.TimeoutExpired:
        return _OUT_OF_TIME
    finally:  # all that is left of it, whatever ended it
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def tests_on_gpu(build: pathlib.Path, end: float, tests: str = "tests/python") -> dict[str, Any]:
    """`end`: a moment of time.monotonic(); math.inf for none."""
    if importlib.util.find_spec("pytest") is None:
        return {"passed": 0, "failed": 0, "skipped": 1, "reason": "pytest is not installed here"}
    told = build / "gpu-tests.jsonl"
    told.unlink(missing_ok=True)
    troubles = []
    for marked, processes in _GROUPS:
        if trouble := _pytest(marked, processes, told, end - time.monotonic(), tests):
            troubles.append({"test": f"tests marked {marked}", "text": trouble})
    found = counts_of(told)
    found["failed"] += len(troubles)
    found["failures"] += troubles
    for skip in found["skips"]:
        print(f"SKIPPED {skip}")
    return found
