"""Single operators on simulated GPUs beside what others measured on real ones (kernel_rows.py, kernel_rows_h200.py,
kernel_rows_held_out.py).

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

# Of each group of rows: its module, the function there, the device's file.
GROUPS = {
    "a100": ("kernel_rows", "a100", "a100-80g"),
    "h100": ("kernel_rows", "h100", "h100-80g"),
    "h200": ("kernel_rows_h200", "h200", "h200"),
    "held-out a100": ("kernel_rows_held_out", "a100", "a100-80g"),
    "held-out h100": ("kernel_rows_held_out", "h100", "h100-80g"),
    "held-out rtx4090": ("kernel_rows_held_out", "rtx4090", "rtx4090"),
}
_BAR = 0.15
_REPEATS = 10  # so that kernels are timed, not the host


def measure(group: str) -> None:
    """Prints what the current device, a simulated one, takes for each row."""
    import torch

    module, rows, _ = GROUPS[group]
    found = []
    for kernel in getattr(importlib.import_module(module), rows)():
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
    parser.add_argument("--measure", choices=GROUPS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options.measure)
        return
    print("| source | device | operator | measured | predicted | ratio |\n|---|---|---|---|---|---|")
    ratios: dict[str, list[float]] = {}
    for group, (_, _, device) in GROUPS.items():
        done = dry_run([str(pathlib.Path(__file__)), "--measure", group], device)
        if done.error:
            raise SystemExit(f"{group}: {done.error}")
        for source, name, measured, predicted in done.printed["kernels"]:
            ratios.setdefault(group, []).append(predicted / measured)
            print(f"| {source} | {device} | {name} | {measured:.1f} us | {predicted:.1f} us | {predicted / measured:.2f} |")
    print("", *(summary(group, of_group, _BAR) for group, of_group in ratios.items()), sep="\n")


if __name__ == "__main__":
    main()
