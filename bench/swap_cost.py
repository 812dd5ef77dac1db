"""Host time that offload adds to a layer: what is done for each tensor that autograd saves.

Hooks, telling tensors apart, taking over, letting go, asking back, giving back, forgetting: a forward
and backward that saves tensors with a recorder and a swap store, less the same without. On a simulated
GPU, whose copies of what was not computed cost next to nothing, so that what is left is the host's own
work: Python, the store, the engine, the driver calls (of the stand-in). Processor time, which other
processes do not lengthen, though they slow it down by what they take of caches and cores; so the least
of these turns is printed, too, and, for a measure of the machine, in the same turns, what torch's own
saved_tensors_hooks add with hooks that do nothing. Tensors are saved in groups, as a part of a piece of
tokens does. The bar is 1 ms for a layer, and a cost that grows neither with the layers nor faster than
the pieces: the last lines say how it grew.

    EBBTIDE_NATIVE_DIR=build/native python bench/swap_cost.py --json swap_cost.json
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "python_shim"))

from ebbtide import _dryrun, _native  # noqa: E402

RUN = pathlib.Path(__file__).with_name("swap_cost_run.py")


def measured(is_bare: bool) -> list[dict[str, float]]:
    environment = {**os.environ, **_dryrun.environment("h200"), "EBBTIDE_NATIVE_DIR": str(_native.folder())}
    environment["EBBTIDE_DRYRUN_BARE"] = str(int(is_bare))
    environment.pop("EBBTIDE", None)
    environment["PYTHONPATH"] = str(ROOT / "python_shim")
    done = subprocess.run(
        [sys.executable, str(RUN)], env=environment, check=True, stdout=subprocess.PIPE, text=True
    )
    rows: list[dict[str, float]] = json.loads(done.stdout.strip().splitlines()[-1])
    return rows


def growth(rows: list[dict[str, float]]) -> list[str]:
    """How a layer's cost grows with the layers, and one more piece's with the pieces. Of the least turns."""
    cost = {(row["layers"], row["tensors"], row["pieces"]): row["least_layer_ms"] for row in rows}
    lines = []
    for tensors, pieces in sorted({case[1:] for case in cost}):
        counts = sorted(layers for layers, *kind in cost if kind == [tensors, pieces])
        few, many = counts[0], counts[-1]
        ratio = cost[many, tensors, pieces] / cost[few, tensors, pieces]
        lines.append(f"{tensors} tensors in {pieces} pieces: a layer of {many} costs {ratio:.2f} of one of {few}")
    one, some, most = (cost[32, 64, pieces] for pieces in (1, 16, 64))
    lines.append(
        f"64 tensors: a piece more costs {(some - one) / 15 * 1e3:.1f} us up to 16 pieces, "
        f"{(most - some) / 48 * 1e3:.1f} us from there to 64"
    )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument(
        "--bare", action="store_true", help="the simulated GPU works out no time and looks at no operator"
    )
    options = parser.parse_args()
    rows = measured(options.bare)
    print(
        " layers  tensors    pieces  ms a layer   least  us a tensor  empty hooks ms  plain ms  host waits"
    )
    for row in rows:
        print(
            f"{row['layers']:>7} {row['tensors']:>8} {row['pieces']:>9} {row['layer_ms']:>11.3f}"
            f" {row['least_layer_ms']:>7.3f} {row['layer_ms'] / row['tensors'] * 1e3:>12.1f}"
            f" {row['hooks_ms']:>15.3f} {row['plain_ms']:>9.3f} {row['host_waits']:>11}"
        )
    for line in growth(rows):
        print(line)
    if options.json:
        options.json.write_text(json.dumps({"schema": "ebbtide.swap-cost/5", "bare": options.bare, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
