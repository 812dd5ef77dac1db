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
import json
import pathlib
import subprocess
import sys
import tempfile
import time
from typing import Any

import prediction
from scenarios import Scenario

HERE = pathlib.Path(__file__).resolve().parent
_KI = 1024
_STEPS = 5
_LAST = 3  # steps that count: the first ones load kernels and make the optimizer's states
_TIMEOUT = 300.0
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


def child(row: Scenario) -> None:
    """Trains on whatever device there is, and prints what came of it."""
    import models
    import torch

    device = torch.device("cuda")
    model = models.make_model(row, device, real_values=True)
    if row.offload >= 0:
        import ebbtide

        ebbtide.offload(model, alpha=row.offload)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    length = row.lengths[1]
    moments = []
    for _ in range(_STEPS + 1):
        moments.append(torch.cuda.Event(enable_timing=True))
        moments[-1].record()
        if len(moments) > _STEPS:
            break
        ids = torch.randint(0, row.vocabulary, (1, length), device=device)
        out = model(input_ids=ids, labels=ids)
        (out if torch.is_tensor(out) else out.loss).backward()
        optimizer.step()
        optimizer.zero_grad()
    torch.cuda.synchronize()
    seconds = [a.elapsed_time(b) / 1e3 for a, b in zip(moments, moments[1:], strict=False)]
    report = {
        "tokens": length,
        "held_bytes": torch.cuda.max_memory_reserved(),
        "live_bytes": torch.cuda.max_memory_allocated(),
        "step_seconds": sum(seconds[-_LAST:]) / _LAST,
    }
    print(json.dumps(report))


def _ebbtide(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "ebbtide", *arguments]


def on_device(file: str | None) -> list[str]:
    """What a command begins with to run on that device file's device; None: on the real one."""
    return [] if file is None else _ebbtide("dryrun", "--device", file, "--")


def call(command: list[str], timeout: float) -> tuple[str, str]:
    """Its last line, or why there is none."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout, check=False, cwd=HERE.parent
        )
    except subprocess.TimeoutExpired:
        return "", f"no result after {timeout:.0f} s"
    lines = done.stdout.strip().splitlines()
    if done.returncode == 0 and lines:
        return lines[-1], ""
    if "OutOfMemoryError" in done.stderr:
        return "", "does not fit"
    said = [line for line in done.stderr.splitlines() if line.strip() and not line.startswith("ebbtide dryrun")]
    return "", said[-1].strip() if said else f"status {done.returncode}"


def run(row: Scenario, file: str | None, timeout: float) -> dict[str, Any]:
    program = [sys.executable, "-W", "ignore", str(HERE / "foresight_check.py"), "--child"]
    last, error = call([*on_device(file), *program, json.dumps(dataclasses.asdict(row))], timeout)
    return {"error": error} if error else json.loads(last)


def calibrated_file(device: str, real: str | None, folder: pathlib.Path) -> tuple[str | None, str]:
    """A device file made on the real device, or why there is none."""
    path = folder / "calibrated.json"
    _, error = call([*on_device(real), *_ebbtide("calibrate", "--like", device, "-o", str(path))], _TIMEOUT)
    return (None, error) if error else (str(path), "")


def measure(
    row: Scenario, device: str, calibrated: str | None, real: str | None, timeout: float
) -> dict[str, Any]:
    """One row: {"row", "tokens", "real", "dry", "calibrated", "checks", "passes"}, or "skipped", or "error"."""
    found: dict[str, Any] = {"row": row.name, "tokens": row.lengths[1]}
    runs = {"dry": device, "calibrated": calibrated, "real": real}
    for name, file in runs.items():
        if name == "calibrated" and file is None:
            continue
        found[name] = run(row, file, timeout)
        if error := found[name].get("error"):
            # A dry run that says so is right where the real one would fail, too: there is nothing to compare.
            key = "skipped" if error == "does not fit" and name != "real" else "error"
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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", help="device file or its name; default: the one of this machine's GPU")
    parser.add_argument("--real-device", metavar="FILE", help="a device file in place of a GPU")
    parser.add_argument("--rows", default=",".join(ROWS), help=f"default: {','.join(ROWS)}")
    parser.add_argument("--minutes", type=float, default=15, help="no row begins after that")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        given = json.loads(options.child)
        child(Scenario(**{name: tuple(v) if isinstance(v, list) else v for name, v in given.items()}))
        return 0
    unknown = [name for name in options.rows.split(",") if name not in ROWS]
    if unknown:
        raise SystemExit(f"foresight_check: --rows {unknown[0]}: unknown row; allowed: {', '.join(ROWS)}")
    report = compare_all(
        [ROWS[name] for name in options.rows.split(",")],
        _chosen_device(options), options.real_device, options.minutes,
    )
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    return 1 if report["failed"] else 0


def compare_all(
    rows: list[Scenario], device: str, real: str | None, minutes: float
) -> dict[str, Any]:
    """{"device", "calibration", "rows", "passed", "failed", "skipped"}; prints each row as it comes."""
    end = time.monotonic() + 60 * minutes
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        calibrated, error = calibrated_file(device, real, pathlib.Path(scratch))
        print(f"dry runs on {device} against {real or 'this GPU'}; calibration: {error or 'measured'}", flush=True)
        print("row                 tokens  figure            predicted      real       error", flush=True)
        for row in rows:
            if time.monotonic() > end:
                found.append({"row": row.name, "tokens": row.lengths[1], "skipped": "out of time"})
            else:
                found.append(measure(row, device, calibrated, real, _TIMEOUT))
            print("\n".join(lines_of(found[-1])), flush=True)
    counts = summary(found)
    if error:  # what should have been measured and was not is no success
        counts["failed"] += 1
    return {"device": device, "calibration": error or "measured", "rows": found, **counts}


if __name__ == "__main__":
    sys.exit(main())
