"""Runs one scenario in this process and prints one JSON object.

Whether Ebbtide serves it, and whether the device is simulated, is the caller's choice: the program
does not know. On a simulated device losses mean nothing and are not read.

    EBBTIDE=1 python bench/run_row.py fixed-8k --layers 2
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import sys
import time
from typing import Any

import device_memory
import json_file
import models
import scenarios
import torch
import training


class Measurement:
    """Collects the numbers of one run, step by step."""

    def __init__(self, row: scenarios.Scenario, on_cuda: bool) -> None:
        self.row = row
        self.on_cuda = on_cuda
        self.simulated = on_cuda and device_memory.simulated_library() is not None
        self.peaks = device_memory.Peaks(device_memory.device_memory()) if on_cuda else None
        self.losses: list[float] = []
        self.seconds: list[float] = []
        self.served_before = (0, 0)  # bytes from the plan and in all, when the run settled
        self._before = time.perf_counter()

    def after_step(self, step: int, loss: torch.Tensor) -> None:
        if not self.simulated:
            self.losses.append(loss.item())  # waits for the device, so the time is the step's
        self.seconds.append(time.perf_counter() - self._before)
        if step == self.row.settle_after and self.peaks:
            self.peaks.reset()
            self.served_before = _served(_ebbtide_stats(self.on_cuda))
        print(f"step {step}/{self.row.steps}", file=sys.stderr, end="\r", flush=True)
        self._before = time.perf_counter()

    def result(self) -> dict[str, Any]:
        settled = self.seconds[self.row.settle_after :] or self.seconds
        result: dict[str, Any] = {
            "scenario": dataclasses.asdict(self.row),
            "torch": torch.__version__,
            "steps_done": len(self.seconds),
            "losses": self.losses,
            "step_ms": 1e3 * statistics.median(settled) if settled else None,
        }
        if self.peaks:
            self.peaks.take()
            result |= {
                "device": torch.cuda.get_device_name(),
                "simulated": self.simulated,
                "held_is": self.peaks.memory.name,
                "held_bytes": self.peaks.held,
                "peak_live_bytes": self.peaks.live,
                "settled_held_bytes": self.peaks.settled_held,
                "settled_peak_live_bytes": self.peaks.settled_live,
                "retries": torch.cuda.memory_stats().get("num_alloc_retries", 0),
            }
            if isinstance(self.peaks.memory, device_memory.TorchMemory):
                result["outside_bytes"] = self.peaks.memory.outside_bytes()
        return result


def _served(stats: dict[str, Any] | None) -> tuple[int, int]:
    """Bytes that the plan served, and bytes that it might have (see ebbtide_stats)."""
    return (stats["settled_planned_bytes"], stats["settled_allocated_bytes"]) if stats else (0, 0)


def _ebbtide_stats(on_cuda: bool) -> dict[str, Any] | None:
    try:
        import ebbtide
    except ModuleNotFoundError:
        return None
    if not ebbtide.is_active():
        return None
    stats = ebbtide.stats(0 if on_cuda else "cpu")
    return dataclasses.asdict(stats)


def measure(row: scenarios.Scenario, device: torch.device, real_values: bool) -> dict[str, Any]:
    on_cuda = device.type == "cuda"
    torch.manual_seed(row.seed)
    model = models.make_model(row, device, real_values)
    if row.offload >= 0:
        import ebbtide

        host = "16TiB" if device_memory.simulated_library() else None  # there it takes no bytes
        ebbtide.offload(model, alpha=row.offload, host=host, strict=True)
    measurement = Measurement(row, on_cuda)
    reason = ""
    try:
        training.train(row, model, device, measurement.after_step)
    except torch.OutOfMemoryError as error:
        reason = str(error).splitlines()[0]
    result = measurement.result()
    result["out_of_memory"] = reason
    result["ebbtide"] = _ebbtide_stats(on_cuda)
    planned, total = _served(result["ebbtide"])
    planned -= measurement.served_before[0]
    total -= measurement.served_before[1]
    result["settled_planned_share"] = planned / total if total else None
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("row", choices=scenarios.ROWS)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--real-values", action="store_true", help="initialise the parameters")
    scenarios.add_arguments(parser)
    options = parser.parse_args()
    row = scenarios.apply_arguments(scenarios.ROWS[options.row], options)
    if options.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("no CUDA device: use --device cpu, or ebbtide dryrun -- python " + __file__)
    print(json_file.text(measure(row, torch.device(options.device), options.real_values)))


if __name__ == "__main__":
    main()
