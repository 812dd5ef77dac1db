"""The part of scripts/gpu-check that runs after the build: tests, dry runs beside real ones, benchmarks, one JSON.

Every part counts what passed, failed and was skipped. Status 1: something failed, or nothing ran of what was asked for.
"""

from __future__ import annotations

import argparse
import functools
import math
import pathlib
import signal
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

import gpu_figures
import gpu_result
import gpu_tests

PARTS = ("tests", "foresight", "benchmarks")


def say(text: str) -> None:
    print(f"\n==> {text}", flush=True)


def _parts(text: str) -> list[str]:
    chosen = text.split(",")
    for part in chosen:
        if part not in PARTS:
            raise argparse.ArgumentTypeError(f"{part}: unknown part; allowed: {','.join(PARTS)}")
    return chosen


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/gpu-check")
    parser.add_argument("--build", type=pathlib.Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--spent", type=float, default=0, help=argparse.SUPPRESS)  # seconds, on the build
    parser.add_argument("--only", type=_parts, default=list(PARTS), metavar="PART,...", help=f"of {','.join(PARTS)}")
    parser.add_argument("--rows", default=gpu_figures.ROWS, help=f"of the benchmarks; default: {gpu_figures.ROWS}")
    parser.add_argument("--deadline", type=float, default=math.inf, metavar="SECONDS", help="for all, the build included")
    return parser.parse_args(arguments)


def found_in(part: str, options: argparse.Namespace, device: str, end: float, tell: gpu_figures.Tell) -> dict[str, Any]:
    if part == "tests":
        return gpu_tests.tests_on_gpu(options.build, end)
    if part == "foresight":
        return gpu_figures.foresight(options.build, device, end, tell)
    return gpu_figures.benchmarks(options.rows, end, tell)


def run_part(work: Callable[[gpu_figures.Tell], dict[str, Any]], put: gpu_figures.Tell) -> dict[str, Any]:
    """What it found. A fault in measuring is a failure of this part, and none of the others."""
    known: dict[str, Any] = {"passed": 0, "failed": 0, "skipped": 0}

    def tell(found: dict[str, Any]) -> None:
        known.update(found)
        put(found)

    try:
        found = work(tell)
    except Exception:
        fault = traceback.format_exc()
        print(fault, file=sys.stderr, flush=True)
        found = known | {"failed": known["failed"] + 1, "fault": fault}
    put(found)
    return found


def check(options: argparse.Namespace, result: gpu_result.Result, end: float) -> bool:
    """Whether all that was asked for ran, and nothing failed."""
    device = result.found["device"]
    parts = {}
    for part in options.only:
        say(f"{part} on {device}")
        result.begin(part)
        work = functools.partial(found_in, part, options, device, end)
        parts[part] = run_part(work, functools.partial(result.put, part))
    result.end()
    for part, found in parts.items():
        say(f"{part}: {found['passed']} passed, {found['failed']} failed, {found['skipped']} skipped")
    return all(found["passed"] and not found["failed"] for found in parts.values())


def main() -> int:
    options = parse()
    end = time.monotonic() + options.deadline - options.spent
    # What runs then ends with this, too: it is in process groups of its own.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    result = gpu_result.Result(gpu_result.describe(), gpu_result.result_folder())
    passed = check(options, result, end)
    say(f"{result.found['device']}: {'passed' if passed else 'FAILED'}; {result.path}")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
