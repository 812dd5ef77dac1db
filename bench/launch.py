"""Starts run_row.py in a process of its own, under one allocator and on one device."""

from __future__ import annotations

import argparse
import json
import math
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from typing import Any

import child_process
import scenarios

WORKER = pathlib.Path(__file__).with_name("run_row.py")
# What each allocator is, in environment variables.
ALLOCATORS = {
    "native": {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:False", "EBBTIDE": "0"},
    "expandable": {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True", "EBBTIDE": "0"},
    "ebbtide": {"EBBTIDE": "1"},
}
PLANNED = "ebbtide+plan"  # the same with a plan that an earlier run saved
OUT_OF_TIME = "out of time"
OURS = ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF", "EBBTIDE", "EBBTIDE_PLAN")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rows", default="all", help="names or numbers, e.g. 1,3,fixed-8k-masks")
    parser.add_argument("--real", action="store_true", help="the real GPU, not a simulated one")
    parser.add_argument("--device", default="h200", help="the GPU to simulate")
    parser.add_argument("--capacity", default="141GiB", help="its memory")
    parser.add_argument("--timeout", type=float, default=600, help="seconds for one run")
    parser.add_argument(
        "--seconds", dest="end", type=_moment, default=math.inf, help="for all runs together; what is left then is named"
    )
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write the results there")
    scenarios.add_arguments(parser)


def _moment(seconds: str) -> float:
    return time.monotonic() + float(seconds)


def _command(row: scenarios.Scenario, device: str, capacity: str | None, real: bool) -> list[str]:
    worker = [sys.executable, str(WORKER), *scenarios.as_arguments(row)]
    if real:
        return [*worker, "--real-values"]  # others draw less power, and their losses mean nothing
    chosen = ["--device", device, *(["--capacity", capacity] if capacity else [])]
    return [sys.executable, "-m", "ebbtide", "dryrun", *chosen, "--", *worker]


def run(
    row: scenarios.Scenario,
    allocator: str,
    options: argparse.Namespace,
    capacity: str | None = None,
    plan: pathlib.Path | None = None,
) -> dict[str, Any]:
    """The worker's JSON; `error` is set when there is none."""
    environment = {k: v for k, v in os.environ.items() if k not in OURS}
    environment |= {"EBBTIDE_REPORT": "off", "EBBTIDE_OOM": "off", **ALLOCATORS[allocator]}
    if plan:
        environment["EBBTIDE_PLAN"] = str(plan)
    command = _command(row, options.device, capacity or options.capacity, options.real)
    left = options.end - time.monotonic()
    if left <= 0:
        return {"error": OUT_OF_TIME}
    try:
        done = child_process.run(command, min(options.timeout, left), environment)
    except subprocess.TimeoutExpired as late:
        error = OUT_OF_TIME if left < options.timeout else f"no result after {options.timeout:.0f} s"
        return {"error": error, "stderr": child_process.last_lines(late.stderr)}
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        error = f"exit {done.returncode}: {child_process.reason(done.stderr)}"
        return {"error": error, "stderr": child_process.last_lines(done.stderr)}
    result: dict[str, Any] = json.loads(lines[-1])
    result["warnings"] = [line for line in done.stderr.splitlines() if _is_warning(line)]
    return result


def _is_warning(line: str) -> bool:
    """A value that was read though nothing computed it means that the program ran astray."""
    if "values read that were not computed" in line:
        return "not computed: 0" not in line
    return child_process.is_warning(line)


def run_planned(row: scenarios.Scenario, options: argparse.Namespace) -> dict[str, Any]:
    """Twice under Ebbtide: the first run saves its plan, the second is served from its start."""
    with tempfile.TemporaryDirectory() as folder:
        plan = pathlib.Path(folder) / "row.plan"
        first = run(row, "ebbtide", options, plan=plan)
        if "error" in first:
            return first
        if not plan.exists():
            return {"error": "the first run saved no plan"}
        return run(row, "ebbtide", options, plan=plan)
