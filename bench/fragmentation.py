"""Device bytes held over peak live bytes, for every scenario and allocator, in one table.

Peak live is what torch had allocated at most under the native allocator; held is the device's own
high-water mark, over the whole run and since the run settled. Beside it: allocation retries, the
share of bytes served from the plan since the run settled and from the start, and the step time on a
real device.

    python bench/fragmentation.py                        all rows on a simulated 141 GiB GPU
    python bench/fragmentation.py --rows 1,6 --seed 7    two rows, other lengths
    python bench/fragmentation.py --real --json out.json on this machine's GPU
"""

from __future__ import annotations

import argparse
from typing import Any

import json_file
import launch
import scenarios

_COLUMNS = ("whole", "settled", "retries", "served", "from start", "step ms")
_GIB = 1 << 30


def _figures(result: dict[str, Any], peak_live: int) -> list[str]:
    if "error" in result:
        return [result["error"]]
    if result["out_of_memory"]:
        return [f"out of memory after {result['steps_done']} steps"]
    stats = result["ebbtide"]
    share = result["settled_planned_share"]
    served = f"{100 * share:.2f} %" if share is not None else "-"
    total = stats["allocated_bytes"] if stats else 0
    from_start = f"{100 * stats['planned_bytes'] / total:.2f} %" if total else "-"
    return [
        f"{result['held_bytes'] / peak_live:.3f}",
        f"{result['settled_held_bytes'] / peak_live:.3f}",
        str(result["retries"]),
        served,
        from_start,
        "-" if result["simulated"] else f"{result['step_ms']:.1f}",
    ]


def _print_row(row: scenarios.Scenario, results: dict[str, dict[str, Any]], peak_live: int) -> None:
    print(f"\n{row.name}  (peak live {peak_live / _GIB:.2f} GiB, seed {row.seed})")
    print(f"  {'':14}" + "".join(f"{name:>12}" for name in _COLUMNS))
    for name, result in results.items():
        cells = _figures(result, peak_live)
        wide = len(cells) == 1
        print(f"  {name:14}" + (cells[0] if wide else "".join(f"{cell:>12}" for cell in cells)))
        for line in result.get("warnings", []):
            print(f"  {'':14}{line}")


def _peak_live(results: dict[str, dict[str, Any]]) -> int:
    """The native run's; where that ran out of memory, the next one that finished."""
    for result in results.values():
        if "error" not in result and not result["out_of_memory"]:
            return int(result["peak_live_bytes"])
    return 0


def measure(row: scenarios.Scenario, options: argparse.Namespace) -> dict[str, Any]:
    results: dict[str, dict[str, Any]] = {}
    for allocator in launch.ALLOCATORS:
        if allocator in options.allocators:
            print(f"{row.name}: {allocator} ...", end=" " * 20 + "\r", flush=True)
            results[allocator] = launch.run(row, allocator, options)
    if launch.PLANNED in options.allocators:
        print(f"{row.name}: {launch.PLANNED} ...", end=" " * 20 + "\r", flush=True)
        results[launch.PLANNED] = launch.run_planned(row, options)
    return {"row": row.name, "peak_live_bytes": _peak_live(results), "results": results}


def show(row: scenarios.Scenario, entry: dict[str, Any]) -> None:
    if entry["peak_live_bytes"]:
        _print_row(row, entry["results"], entry["peak_live_bytes"])
    else:
        print(f"\n{row.name}: nothing finished: "
              + "; ".join(_figures(r, 1)[0] for r in entry["results"].values()))


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    everything = [*launch.ALLOCATORS, launch.PLANNED]
    parser.add_argument(
        "--allocators", type=lambda text: text.split(","), default=everything, metavar="A,B",
        help=f"some of {','.join(everything)}",
    )
    launch.add_arguments(parser)
    options = parser.parse_args(arguments)
    unknown = set(options.allocators) - set(everything)
    if unknown:
        parser.error(f"unknown allocator {unknown.pop()}: allowed are {', '.join(everything)}")
    return options


def main() -> None:
    options = parse()
    measured = []
    for row in scenarios.chosen_rows(options.rows):
        changed = scenarios.apply_arguments(row, options)
        entry = measure(changed, options)
        measured.append(entry)
        show(changed, entry)
        if options.json:
            json_file.write(options.json, measured)


if __name__ == "__main__":
    main()
