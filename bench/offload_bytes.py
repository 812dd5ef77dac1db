"""Peaks of a step with offload, on the device and on the host, beside what must be there.

On a simulated GPU, for two models, two lengths, three shares alpha, with as much host memory as is
asked for and with half of that, with one and with two last layers on the device. Device peaks are above
the parameters, of forward and of backward; what they must weigh is computed from shapes
(offload_weights.py). The bar is 5 % in every column; the exit status is 1 if one is missed.

    python bench/offload_bytes.py
    python bench/offload_bytes.py --models gpt2 --json out.json
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import subprocess
import sys
from typing import Any

_WORKER = pathlib.Path(__file__).with_name("offload_bytes_run.py")
_SETTINGS = {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True", "EBBTIDE": "0", "EBBTIDE_REPORT": "off"}
BAR = 1.05
_GIB = 1 << 30
PARTS = (("forward", "must_forward"), ("backward", "must_backward"), ("host_peak", "must_host"))


def run(model: str, further: list[str]) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "ebbtide", "dryrun", "--device", "h200", "--capacity", "512GiB", "--"]
    command += [sys.executable, str(_WORKER), model, *further]
    done = subprocess.run(command, env=os.environ | _SETTINGS, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("[")]
    if not lines:
        raise SystemExit(f"{model}: {done.stderr.strip().splitlines()[-1]}")
    rows: list[dict[str, Any]] = json.loads(lines[-1])
    return rows


def ratios(row: dict[str, Any]) -> list[float]:
    """Measured over what must be there: forward, backward, host."""
    return [row[found] / row[must] for found, must in PARTS]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", default="llama,gpt2")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write the results there")
    options, further = parser.parse_known_args()
    print("| model | tokens | alpha | keep last | host budget | forward GiB / must | backward GiB / must"
          " | host GiB / must | worst |")
    print("|---|---|---|---|---|---|---|---|---|")
    measured, worst = [], 0.0
    for model in options.models.split(","):
        for row in run(model, further):
            measured.append({"model": model, **row})
            most = max(ratios(row))
            worst = max(worst, most)
            cells = [f"{row[found] / _GIB:.2f} / {row[must] / _GIB:.2f}" for found, must in PARTS]
            budget = "ample" if row["host"] is None else f"{row['host'] / _GIB:.1f}"
            given = [model, f"{row['tokens'] // 1024}K", row["alpha"], row["keep_last"], budget]
            print("| " + " | ".join(map(str, [*given, *cells, f"{most:.3f}"])) + " |", flush=True)
    if options.json:
        options.json.write_text(json.dumps(measured, indent=1) + "\n")
    print(f"\nworst: {worst:.3f} of what must be there; the bar is {BAR}")
    raise SystemExit(worst > BAR)


if __name__ == "__main__":
    main()
