"""Single operators on simulated GPUs beside what others measured on real ones (kernel_rows.py, kernel_rows_h200.py).

    python bench/published_kernels.py                 half a minute; no figure of published.py's rows is among them

Predicted / measured below 1: the prediction is too fast.
"""

from __future__ import annotations

import argparse
import importlib
import json
import pathlib

from dry_run import dry_run
from published import summary

_DEVICES = {"a100": "a100-80g", "h100": "h100-80g", "h200": "h200"}
_MODULES = {"h200": "kernel_rows_h200"}  # of what is not in kernel_rows
_BAR = 0.15
_REPEATS = 10  # so that kernels are timed, not the host


def measure(rows: str) -> None:
    """Prints what the current device, a simulated one, takes for each row."""
    import torch

    found = []
    for kernel in getattr(importlib.import_module(_MODULES.get(rows, "kernel_rows")), rows)():
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        kernel.run()
        torch.cuda.synchronize()
        start.record()
        for _ in range(_REPEATS):
            kernel.run()
        end.record()
        torch.cuda.synchronize()
        taken = 1e3 * start.elapsed_time(end) / _REPEATS
        found.append([kernel.source, kernel.name, kernel.microseconds, taken])
    print(json.dumps({"kernels": found}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", choices=_DEVICES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options.measure)
        return
    print("| source | device | operator | measured | predicted | ratio |\n|---|---|---|---|---|---|")
    ratios: dict[str, list[float]] = {}
    for rows, device in _DEVICES.items():
        done = dry_run([str(pathlib.Path(__file__)), "--measure", rows], device)
        if done.error:
            raise SystemExit(f"{device}: {done.error}")
        for source, name, measured, predicted in done.printed["kernels"]:
            ratios.setdefault(device, []).append(predicted / measured)
            print(f"| {source} | {device} | {name} | {measured:.1f} us | {predicted:.1f} us | {predicted / measured:.2f} |")
    print("", *(summary(device, of_device, _BAR) for device, of_device in ratios.items()), sep="\n")


if __name__ == "__main__":
    main()
