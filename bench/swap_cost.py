"""Host time of what a swap store does for one layer: save, let go, prefetch, get, release.

On a simulated GPU, whose copies of what was not computed cost next to nothing, so that what is left is
the host's own work: Python, the engine, the driver calls (of the stand-in). Processor time of the calling
thread, which other processes do not lengthen. Every layer saves the given number of tensors, one by one
or (`together`) in groups, as a piece of tokens does. Beside it, in turns with it, one detach() from
Python for each: the least that a hook written in Python does, and a measure of how fast and how idle
the machine is. The bar is 1 ms for a layer, and a cost that does not grow with the layers.

    EBBTIDE_NATIVE_DIR=build/native python bench/swap_cost.py --json swap_cost.json
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "python_shim"))

from ebbtide import _dryrun, _native  # noqa: E402

LAYERS = (32, 128)
# Tensors of a layer, how many leave together. Three: its input, attention's output and log-sum-exp.
CASES = ((3, 1), (64, 1), (64, 8), (256, 8))
TENSOR_BYTES = 16 << 20
TURNS = 5


def one_step(store: object, layers: int, tensors: int, group: int) -> float:
    """Processor seconds of a forward and backward of `layers` layers, without the tensors' own allocation."""
    import torch

    spent = 0.0
    graph = []
    for _ in range(layers):
        made = [torch.empty(TENSOR_BYTES, dtype=torch.uint8, device="cuda") for _ in range(tensors)]
        begin = time.thread_time()
        saved = [store.save_all(made[i : i + group]) for i in range(0, tensors, group)]
        graph.append([each for several in saved for each in several])
        store.layer_ended()
        spent += time.thread_time() - begin
        del made
    begin = time.thread_time()
    while graph:
        layer = graph.pop()
        for saved in graph[-1] if graph else ():
            saved.prefetch()
        for saved in layer:
            saved.get()
            saved.release()
    return spent + time.thread_time() - begin


def detaches(tensors: int) -> float:
    """Processor seconds of one layer's tensors for a detach() of each."""
    import torch

    made = [torch.empty(TENSOR_BYTES, dtype=torch.uint8, device="cuda") for _ in range(tensors)]
    begin = time.thread_time()
    for tensor in made:
        tensor.detach()
    return time.thread_time() - begin


def measure() -> list[dict[str, float]]:
    from ebbtide._offload._swap_store import SwapStore

    rows = []
    for tensors, group in CASES:
        for layers in LAYERS:
            store = SwapStore("cuda", 1 << 42)
            one_step(store, layers, tensors, group)  # host memory is pinned in the first one
            times, detached = [], []
            for _ in range(TURNS):
                times.append(one_step(store, layers, tensors, group) / layers * 1e3)
                detached.append(detaches(tensors) * 1e3)
            rows.append(
                {
                    "layers": layers,
                    "tensors": tensors,
                    "together": group,
                    "layer_ms": statistics.median(times),
                    "layer_ms_spread": max(times) - min(times),
                    "detach_ms": statistics.median(detached),
                    "tensor_us": statistics.median(times) / tensors * 1e3,
                    "host_waits": store.stats().host_waits,
                }
            )
            store.close()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        print(json.dumps(measure()))
        return
    environment = {**os.environ, **_dryrun.environment("h200"), "EBBTIDE_NATIVE_DIR": str(_native.folder())}
    environment.pop("EBBTIDE", None)
    done = subprocess.run(
        [sys.executable, __file__, "--inside"], env=environment, check=True, capture_output=True, text=True
    )
    rows = json.loads(done.stdout.strip().splitlines()[-1])
    print(" layers  tensors  together  ms a layer  spread  us a tensor  detach ms  host waits")
    for row in rows:
        print(
            f"{row['layers']:>7} {row['tensors']:>8} {row['together']:>9} {row['layer_ms']:>11.3f}"
            f" {row['layer_ms_spread']:>7.3f} {row['tensor_us']:>12.1f} {row['detach_ms']:>10.3f} {row['host_waits']:>11}"
        )
    if options.json:
        options.json.write_text(json.dumps({"schema": "ebbtide.swap-cost/1", "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
