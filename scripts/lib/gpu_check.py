"""The part of scripts/gpu-check that runs after the build: tests, benchmarks, one JSON.

Every test group reports passed, failed and skipped; what could not run at all (no GoogleTest, no
pytest, no transformers) is said aloud and counted as skipped too.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import json
import os
import pathlib
import platform
import re
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[2]


def say(text: str) -> None:
    print(f"\n==> {text}", flush=True)


def output_of(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT).stdout.strip()
    except OSError:
        return ""


def describe() -> dict[str, Any]:
    import torch

    query = ("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "-i", "0")
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "device": torch.cuda.get_device_name(0),
        "device_bytes": torch.cuda.get_device_properties(0).total_memory,
        "driver": output_of(*query).splitlines()[0] if output_of(*query) else "unknown",
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        "compiler": (output_of("c++", "--version") or "unknown").splitlines()[0],
        "commit": output_of("git", "rev-parse", "HEAD") or os.environ.get("EBBTIDE_COMMIT", ""),
        "uncommitted_changes": bool(output_of("git", "status", "--porcelain")),
    }


def _junit_counts(path: pathlib.Path) -> dict[str, Any]:
    counts: dict[str, Any] = {"passed": 0, "failed": 0, "skipped": 0, "failures": [], "skips": []}
    for case in ET.parse(path).getroot().iter("testcase"):
        name = f"{case.get('classname', '')}.{case.get('name', '')}"
        skipped = case.find("skipped")
        # ctest marks a test that could not start in an attribute, pytest and ctest failures in a child.
        if case.find("failure") is not None or case.find("error") is not None:
            counts["failed"] += 1
            counts["failures"].append(name)
        elif skipped is not None or case.get("status") in ("notrun", "disabled"):
            counts["skipped"] += 1
            counts["skips"].append(f"{name}: {skipped.get('message') if skipped is not None else ''}")
        else:
            counts["passed"] += 1
    return counts


def _not_run(what: str, reason: str) -> dict[str, Any]:
    say(f"SKIPPED {what}: {reason}")
    return {"passed": 0, "failed": 0, "skipped": 1, "failures": [], "skips": [f"{what}: {reason}"]}


def _run_tests(what: str, command: list[str], report: pathlib.Path) -> dict[str, Any]:
    say(what)
    report.unlink(missing_ok=True)
    code = subprocess.run(command, cwd=ROOT).returncode
    if not report.exists():
        return _not_run(what, f"no report was written (exit code {code})") | {"failed": 1}
    counts = _junit_counts(report)
    if code and not counts["failed"] and counts["passed"]:
        counts["failed"] += 1
        counts["failures"].append(f"{what}: exit code {code}")
    for skip in counts["skips"]:
        print(f"SKIPPED {skip}")
    if not counts["passed"] and not counts["failed"]:
        print(f"SKIPPED {what}: no such test ran")
    return counts


def cpp_tests(build: pathlib.Path) -> dict[str, Any]:
    if "EBBTIDE_TESTS:BOOL=ON" not in (build / "CMakeCache.txt").read_text():
        return _not_run("C++ gpu tests", "GoogleTest is not installed here")
    report = build / "gpu-cpp.xml"
    command = ["ctest", "--test-dir", str(build), "-L", "gpu", "--output-on-failure"]
    return _run_tests("C++ tests labelled gpu", [*command, "--output-junit", str(report)], report)


def python_tests(build: pathlib.Path) -> dict[str, Any]:
    if importlib.util.find_spec("pytest") is None:
        return _not_run("Python gpu tests", "pytest is not installed here")
    report = build / "gpu-python.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "tests/python"]
    return _run_tests("Python tests marked gpu", [*command, f"--junitxml={report}"], report)


def benchmarks(build: pathlib.Path, rows: str, minutes: float) -> list[dict[str, Any]]:
    """bench/fragmentation.py row by row, until the minutes are over; what is left is named."""
    sys.path.insert(0, str(ROOT / "bench"))
    import scenarios

    model = []
    if importlib.util.find_spec("transformers") is None:
        say("transformers is not installed here: the benchmarks use bench/plain_llama.py")
        model = ["--model", "plain"]
    results: list[dict[str, Any]] = []
    end = time.monotonic() + 60 * minutes
    for row in scenarios.chosen_rows(rows):
        if time.monotonic() > end:
            print(f"SKIPPED benchmark {row.name}: the {minutes:g} minutes are over")
            results.append({"row": row.name, "skipped": "out of time"})
            continue
        report = build / "row.json"
        report.unlink(missing_ok=True)
        command = [sys.executable, "bench/fragmentation.py", "--real", "--rows", row.name]
        subprocess.run([*command, *model, "--timeout", "180", "--json", str(report)], cwd=ROOT)
        results += json.loads(report.read_text()) if report.exists() else [
            {"row": row.name, "error": "no result"}
        ]
    return results


def foresight(build: pathlib.Path, minutes: float) -> dict[str, Any]:
    """bench/foresight_check.py: dry runs beside real ones, each row with pass or fail."""
    say("dry runs against this GPU: peak memory, step time")
    report = build / "foresight.json"
    report.unlink(missing_ok=True)
    command = [sys.executable, "bench/foresight_check.py", "--minutes", f"{minutes:g}", "--json", str(report)]
    done = subprocess.run(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    if report.exists():
        found: dict[str, Any] = json.loads(report.read_text())
        return found
    said = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
    print(f"SKIPPED dry runs against this GPU: {said[-1]}")
    return {"rows": [], "passed": 0, "failed": 0, "skipped": 1, "reason": said[-1]}


def result_path(described: dict[str, Any]) -> pathlib.Path:
    device = re.sub(r"[^a-z0-9]+", "-", described["device"].lower()).strip("-")
    name = f"{described['date'][:10]}-{device}.json"
    folder = pathlib.Path(os.environ["OUT"]) if os.environ.get("OUT") else ROOT / "bench/results"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / name


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/gpu-check")
    parser.add_argument("--build", type=pathlib.Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--rows", default="1,2,3,4,5,6,7", help="benchmark rows")
    parser.add_argument("--minutes", type=float, default=8, help="time for benchmarks")
    parser.add_argument("--skip-benchmarks", action="store_true")
    parser.add_argument("--foresight-minutes", type=float, default=10, help="for dry runs against real ones; 0: none")
    options = parser.parse_args()
    described: dict[str, Any] = {"schema": 1, **describe()}
    path = result_path(described)
    groups = {"cpp": cpp_tests(options.build), "python": python_tests(options.build)}
    described["tests"] = groups
    for outcome in ("passed", "failed", "skipped"):
        described[outcome] = sum(group[outcome] for group in groups.values())
    # Written before the benchmarks too: a run that is cut off keeps its test results.
    path.write_text(json.dumps(described, indent=1) + "\n")
    if options.foresight_minutes > 0:
        found = described["foresight"] = foresight(options.build, options.foresight_minutes)
        path.write_text(json.dumps(described, indent=1) + "\n")
        say(f"dry runs: {found['passed']} rows as predicted, {found['failed']} not, {found['skipped']} skipped")
    if not options.skip_benchmarks:
        described["benchmarks"] = benchmarks(options.build, options.rows, options.minutes)
        path.write_text(json.dumps(described, indent=1) + "\n")
    say(f"{described['device']}: {described['passed']} passed, {described['failed']} failed, "
        f"{described['skipped']} skipped; {path}")
    return 1 if described["failed"] or not described["passed"] else 0


if __name__ == "__main__":
    sys.exit(main())
