"""Dry runs beside real runs of the same programs: peak memory and step time, with pass or fail a row.

    python bench/foresight_check.py [--device h200] [--rows llama-8k,...] [--json FILE]
    python bench/foresight_check.py --device h200 --real-device ./other.json    without a GPU

The first needs a GPU; --device is the file that stands for it (default: the one of its name). In the
second the "real" runs are dry runs on another device file: it shows that the comparison works, and says
nothing of a real device. Either measures with `ebbtide calibrate`, too. What does not fit is skipped.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import math
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import child_process
import json_file
import prediction
from scenarios import Scenario

HERE = pathlib.Path(__file__).resolve().parent
_KI = 1024
_TIMEOUT = 300.0
OUT_OF_TIME = "out of time"
DOES_NOT_FIT = "does not fit"
ROWS = {
    row.name: row
    for row in (
        Scenario("llama-8k", (8 * _KI, 8 * _KI), layers=4),
        Scenario("llama-32k", (32 * _KI, 32 * _KI), layers=4, checkpointing=True),
        Scenario("qwen3-16k", (16 * _KI, 16 * _KI), layers=4, model="qwen3", kv_heads=8),
        Scenario("gpt2-8k", (8 * _KI, 8 * _KI), layers=4, model="gpt2", mlp=16384, kv_heads=32),
        Scenario("llama-64k-offload", (64 * _KI, 64 * _KI), layers=4, offload=0.0),
        Scenario("llama-2k", (2 * _KI, 2 * _KI), layers=4),
    )
}


def _ebbtide(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "ebbtide", *arguments]


def on_device(file: str | None) -> list[str]:
    """What a command begins with to run on that device file's device; None: on the real one."""
    return [] if file is None else _ebbtide("dryrun", "--device", file, "--")


@dataclasses.dataclass
class Called:
    """`error`: why there is no last line. `stderr`: the end of it where there is an error."""

    last: str = ""
    error: str = ""
    warnings: list[str] = dataclasses.field(default_factory=list)
    stderr: str = ""


def call(command: list[str], end: float) -> Called:
    left = end - time.monotonic()
    if left <= 0:
        return Called(error=OUT_OF_TIME)
    try:
        done = child_process.run(command, min(_TIMEOUT, left), cwd=HERE.parent)
    except subprocess.TimeoutExpired as late:
        error = OUT_OF_TIME if left < _TIMEOUT else f"no result after {_TIMEOUT:.0f} s"
        return Called(error=error, stderr=child_process.last_lines(late.stderr))
    lines = done.stdout.strip().splitlines()
    warnings = [line for line in done.stderr.splitlines() if child_process.is_warning(line)]
    if done.returncode == 0 and lines:
        return Called(lines[-1], "", warnings)
    does_not_fit = "OutOfMemoryError" in done.stderr
    error = DOES_NOT_FIT if does_not_fit else f"exit {done.returncode}: {child_process.reason(done.stderr)}"
    return Called("", error, warnings, child_process.last_lines(done.stderr))


def run(row: Scenario, file: str | None, end: float) -> dict[str, Any]:
    program = [sys.executable, "-W", "ignore", str(HERE / "foresight_run.py")]
    called = call([*on_device(file), *program, json.dumps(dataclasses.asdict(row))], end)
    found = {"error": called.error, "stderr": called.stderr} if called.error else json.loads(called.last)
    return found | ({"warnings": called.warnings} if called.warnings else {})


def measure(row: Scenario, device: str, calibrated: str | None, real: str | None, end: float) -> dict[str, Any]:
    """One row: {"row", "tokens", "real", "dry", "calibrated", "checks", "passes"}, or "skipped", or "error"."""
    found: dict[str, Any] = {"row": row.name, "tokens": row.lengths[1]}
    runs = {"dry": device, "calibrated": calibrated, "real": real}
    for name, file in runs.items():
        if name == "calibrated" and file is None:
            continue
        found[name] = run(row, file, end)
        error = found[name].get("error")
        if error == OUT_OF_TIME:
            return found | {"skipped": error}
        if error:
            # A dry run that says so is right where the real one would fail, too: there is nothing to compare.
            key = "skipped" if error == DOES_NOT_FIT and name != "real" else "error"
            return found | {key: f"{name} run: {error}"}
    checks = prediction.compare(found["real"], found["dry"], found.get("calibrated"))
    found["checks"] = [dataclasses.asdict(one) for one in checks]
    found["passes"] = prediction.verdict(checks)
    return found


def lines_of(found: dict[str, Any]) -> list[str]:
    name = f"{found['row']:18} {found['tokens']:7}"
    for key in ("skipped", "error"):
        if key in found:
            return [f"{name}  {key}: {found[key]}"]
    lines = []
    for one in found["checks"]:
        word = {True: "pass", False: "FAIL", None: "-"}[one["passes"]]
        is_time = one["what"].startswith("step")
        unit, scale = ("s", 1.0) if is_time else ("GiB", 2.0**-30)
        lines.append(
            f"{name}  {one['what']:17} {one['predicted'] * scale:9.4f} {one['real'] * scale:9.4f} {unit:4}"
            f"{100 * one['error']:+7.2f} %  (allowed {100 * one['allowed']:g} %)  {word}"
        )
    return lines


def summary(rows: list[dict[str, Any]]) -> dict[str, int]:
    return {
        "passed": sum(row.get("passes") is True for row in rows),
        "failed": sum(row.get("passes") is False or "error" in row for row in rows),
        "skipped": sum("skipped" in row for row in rows),
    }


def file_of(name: str) -> str | None:
    """The device file that describes a GPU of this name."""
    from ebbtide import _devices

    return next((option for option in _devices.names() if _devices.load(option).name == name), None)


def _chosen_device(options: argparse.Namespace) -> str:
    if options.device:
        return str(options.device)
    import torch

    name = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "no GPU"
    found = file_of(name)
    if found is None:
        raise SystemExit(
            f"foresight_check: no device file is named {name!r}: give the most similar with --device"
        )
    return found


def calibrate(device: str, real: str | None, path: pathlib.Path, end: float) -> dict[str, Any]:
    """Writes a device file made on the real device. What is told of it: "calibration", and the file or why there is none."""
    called = call([*on_device(real), *_ebbtide("calibrate", "--like", device, "-o", str(path))], end)
    if called.error:
        return {"calibration": called.error, "calibration_stderr": called.stderr}
    return {"calibration": "measured", "device_file": json.loads(path.read_text())}


def compare_all(
    rows: list[Scenario],
    device: str,
    real: str | None,
    end: float = math.inf,
    tell: Callable[[dict[str, Any]], None] = lambda report: None,
) -> dict[str, Any]:
    """{"device", "calibration", "device_file", "rows", "passed", "failed", "skipped"}; prints each row as it comes, and
    tells the report so far. Nothing goes on after `end`, a moment of time.monotonic()."""
    report: dict[str, Any] = {"device": device, "rows": []}

    def count_and_tell() -> None:
        counts = summary(report["rows"])
        # What should have been measured and was not is no success.
        report.update(counts, failed=counts["failed"] + ("device_file" not in report))
        tell(report)

    with tempfile.TemporaryDirectory() as scratch:
        path = pathlib.Path(scratch) / "calibrated.json"
        report |= calibrate(device, real, path, end)
        count_and_tell()
        print(f"dry runs on {device} against {real or 'this GPU'}; calibration: {report['calibration']}", flush=True)
        print("row                 tokens  figure            predicted      real       error", flush=True)
        for row in rows:
            report["rows"].append(measure(row, device, str(path) if "device_file" in report else None, real, end))
            print("\n".join(lines_of(report["rows"][-1])), flush=True)
            count_and_tell()
    return report


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", help="device file or its name; default: the one of this machine's GPU")
    parser.add_argument("--real-device", metavar="FILE", help="a device file in place of a GPU")
    parser.add_argument("--rows", default=",".join(ROWS), help=f"default: {','.join(ROWS)}")
    parser.add_argument("--minutes", type=float, default=15, help="nothing goes on after that")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE")
    options = parser.parse_args()
    unknown = [name for name in options.rows.split(",") if name not in ROWS]
    if unknown:
        raise SystemExit(f"foresight_check: --rows {unknown[0]}: unknown row; allowed: {', '.join(ROWS)}")
    report = compare_all(
        [ROWS[name] for name in options.rows.split(",")], _chosen_device(options), options.real_device,
        time.monotonic() + 60 * options.minutes,
        functools.partial(json_file.write, options.json) if options.json else lambda report: None,
    )
    return 1 if report["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
