"""alpha="auto" beside a sweep of alpha, on every device file: step times and stalls, in virtual time.

    python bench/alpha_sweep.py [--devices h200,l40s] [--models llama] [--lengths 32768,65536] [--batch 2] [--json FILE]

One dry run a device, model and length: a few training steps at each alpha, then enough with "auto"
for it to settle. Of each alpha the last steps count; inf: they do not fit the device. `kept`: layers
that keep all they save with "auto"; 0: the last one alone, of what its share says, as with a given alpha. A row meets the
bar if auto's step is at most 1 % longer than the shortest of the sweep, and stalls are at most 1 % of it.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import math
import pathlib
import subprocess
import sys
import tempfile
from typing import Any

HERE = pathlib.Path(__file__).resolve().parent
ALPHAS = (0.0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0)
_STEPS, _SETTLING = 3, 72  # at each alpha; until auto has settled
_LAST = 2
_LAYERS = 5
_BAR = 0.01


def child(model_name: str, batch: int, length: int, host: str) -> None:
    """Trains; the steps' times come out of the dry run's report."""
    import ebbtide
    import models
    import scenarios
    import torch

    row = scenarios.Scenario("sweep", (length, length), model=model_name, layers=_LAYERS)
    model = models.make_model(row, torch.device("cuda"), real_values=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    ids = torch.zeros(batch, length, dtype=torch.long, device="cuda")
    counts = []
    for alpha in (*ALPHAS, "auto"):
        ebbtide.offload(model, alpha=alpha, host=host)
        torch.cuda.reset_peak_memory_stats()  # "auto" asks what was alive at most
        counts.append(0)
        with contextlib.suppress(torch.OutOfMemoryError if alpha != "auto" else ()):
            for _ in range(_SETTLING if alpha == "auto" else _STEPS):
                model(input_ids=ids, labels=ids).loss.backward()
                optimizer.step()
                optimizer.zero_grad()
                counts[-1] += 1
        if alpha == "auto":
            told = ebbtide.stats().offload.models[-1]
            print(json.dumps({"alpha": told.alpha, "limit": told.limit, "kept": told.kept_layers, "counts": counts}))
        ebbtide.offload(model, off=True)
        optimizer.zero_grad()


def measure(device: str, model: str, batch: int, length: int, host: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as scratch:
        report = pathlib.Path(scratch) / "report.json"
        command = [sys.executable, "-m", "ebbtide", "dryrun", "--device", device, "--json", str(report)]
        program = [sys.executable, "-W", "ignore", str(HERE / "alpha_sweep.py"), "--child", model]
        done = subprocess.run(
            [*command, "--", *program, "--batch", str(batch), "--lengths", str(length), "--host", host],
            check=False,
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            lines = [
                line
                for line in done.stderr.splitlines()
                if line.strip() and not line.startswith(("ebbtide", " "))
            ]
            return {"error": lines[-1] if lines else f"status {done.returncode}"}
        time = json.loads(report.read_text())["time"]
    settled = json.loads(done.stdout.strip().splitlines()[-1])
    seconds, stalled = time["each_step_seconds"], time["each_step_stalled_seconds"]
    # A share with fewer steps did not fit the device.
    counts = settled.pop("counts")
    ends = [end if count >= _STEPS else None for end, count in zip(itertools.accumulate(counts), counts, strict=True)]
    steps = [min(seconds[end - _LAST : end]) if end else math.inf for end in ends]
    stalls = [min(stalled[end - _LAST : end]) if end else math.inf for end in ends]
    return {"steps": steps, "stalls": stalls, **settled}


def line(found: dict[str, Any]) -> str:
    if "error" in found:
        return found["error"]
    *sweep, auto = found["steps"]
    best = min(sweep)
    stall = found["stalls"][-1] / auto
    meets = auto <= best * (1 + _BAR) and stall <= _BAR
    return (
        f"{auto:8.3f} s {found['kept']:4} {found['alpha']:6.3f} {found['limit'] or '-':>6} {100 * stall:6.2f} % "
        f"{best:8.3f} s {ALPHAS[sweep.index(best)]:6.3f} {auto / best:6.3f}  {'yes' if meets else 'NO'}  "
        + " ".join(f"{step / best:.3f}" for step in sweep)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--devices", default="h200,h100-80g,a800-80g,a100-80g,a100-40g,l40s,rtx4090")
    parser.add_argument("--models", default="llama,qwen3")
    parser.add_argument("--lengths", default="16384,65536")
    parser.add_argument("--batch", type=int, default=1, help="sequences of that length in a step (default: 1)")
    parser.add_argument("--host", default="128GiB")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    lengths = [int(length) for length in options.lengths.split(",")]
    if options.child:
        return child(options.child, options.batch, lengths[0], options.host)
    rows = []
    print(
        f"{'device':10} {'model':6} {'length':>7} {'auto':>10} {'kept':>4} {'alpha':>6} {'limit':>6} {'stalls':>8} "
        f"{'best':>10} {'alpha':>6} {'ratio':>6} meets  the sweep, over its best"
    )
    for device in options.devices.split(","):
        for model in options.models.split(","):
            for length in lengths:
                found = measure(device, model, options.batch, length, options.host)
                print(f"{device:10} {model:6} {length:7} {line(found)}", flush=True)
                rows.append({"device": device, "model": model, "batch": options.batch, "length": length, **found})
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
