"""The smallest simulated device on which a scenario runs without an allocation retry.

A retry synchronises the device and unmaps cached memory, so a run that needs one has stopped being
fast before it fails. Bisected for native, expandable segments and Ebbtide (with and without a saved
plan); printed as a multiple of the scenario's peak live bytes.

    python bench/smallest_device.py --rows 1,3 --precision 0.005
"""

from __future__ import annotations

import argparse
import json
import pathlib
import tempfile
from typing import Any

import launch
import scenarios

_LOWEST = 0.97  # of peak live: torch's count includes rounding, so a device may be a little smaller
_LARGEST_BYTES = 1 << 40


def _fits(result: dict[str, Any]) -> bool:
    return "error" not in result and not result["out_of_memory"] and result["retries"] == 0


def smallest(
    row: scenarios.Scenario,
    allocator: str,
    peak_live: int,
    options: argparse.Namespace,
    plan: pathlib.Path | None,
) -> float | None:
    """As a multiple of peak_live, to options.precision; None if not even 2.5 times is enough."""

    def runs_at(multiple: float) -> bool:
        capacity = f"{int(multiple * peak_live)}B"
        return _fits(launch.run(row, allocator, options, capacity=capacity, plan=plan))

    low, high = _LOWEST, options.highest
    if not runs_at(high):
        return None
    while high - low > options.precision:
        middle = (low + high) / 2
        print(f"{row.name}: {allocator} at {middle:.4f} ...", end=" " * 12 + "\r", flush=True)
        low, high = (low, middle) if runs_at(middle) else (middle, high)
    return high


def measure(row: scenarios.Scenario, options: argparse.Namespace) -> dict[str, Any]:
    # A device on which nothing is tight: the peak live bytes are the program's own.
    roomy = launch.run(row, "native", options, capacity=f"{_LARGEST_BYTES}B")
    if "error" in roomy or roomy["out_of_memory"]:
        return {"row": row.name, "error": roomy.get("error") or roomy["out_of_memory"]}
    peak_live = int(roomy["peak_live_bytes"])
    entry: dict[str, Any] = {"row": row.name, "seed": row.seed, "peak_live_bytes": peak_live}
    for allocator in launch.ALLOCATORS:
        entry[allocator] = smallest(row, allocator, peak_live, options, None)
    with tempfile.TemporaryDirectory() as folder:
        plan = pathlib.Path(folder) / "row.plan"
        launch.run(row, "ebbtide", options, capacity=f"{_LARGEST_BYTES}B", plan=plan)
        entry[launch.PLANNED] = (
            smallest(row, "ebbtide", peak_live, options, plan) if plan.exists() else None
        )
    return entry


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--precision", type=float, default=0.005, help="of the multiple")
    parser.add_argument("--highest", type=float, default=2.5, help="the largest multiple tried")
    launch.add_arguments(parser)
    options = parser.parse_args()
    if options.real:
        parser.error("--real: a real device has one size; this needs a simulated one")
    names = [*launch.ALLOCATORS, launch.PLANNED]
    print(f"{'smallest / peak live':22}" + "".join(f"{name:>14}" for name in names))
    measured = []
    for row in scenarios.chosen_rows(options.rows):
        entry = measure(scenarios.apply_arguments(row, options), options)
        measured.append(entry)
        if "error" in entry:
            print(f"{row.name:22}{entry['error']}")
        else:
            cells = (f"{entry[n]:.3f}" if entry[n] else f"> {options.highest}" for n in names)
            print(f"{row.name:22}" + "".join(f"{cell:>14}" for cell in cells))
        if options.json:
            options.json.write_text(json.dumps(measured, indent=1) + "\n")


if __name__ == "__main__":
    main()
