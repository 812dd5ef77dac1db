"""What a trace costs: CPU time of a training step with EBBTIDE_TRACE and without, and bytes an event.

--stacks adds EBBTIDE_TRACE_STACKS, --cupti LIBRARY adds EBBTIDE_CUPTI: with the library that the tests make by hand
(build/tests/libfake_cupti.so), which is given 3000 records a step, that is what it and Ebbtide do for them, and not what
NVIDIA's own costs the program.

A Hugging Face Llama at 8B width in bf16 with fused AdamW, served by Ebbtide on a simulated GPU, where a step is host
time alone: on a real device that time lies behind the device's work. All threads are counted, the writer's too; the
smallest of many steps in several processes, which take turns. A machine's noise is a millisecond.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import pathlib
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "python_shim"))

from ebbtide import _dryrun, _native  # noqa: E402

if TYPE_CHECKING:
    from ebbtide._reports._model import Recording


RECORDS = 3000  # of kernels, a step


def kernels(library: str) -> Callable[[], None]:
    """Makes the hand-made libcupti believe that a step's kernels ran."""
    if not library:
        return lambda: None
    fake = ctypes.CDLL(library)
    name = ctypes.create_string_buffer(b"_Z4gemmPf")

    def run() -> None:
        now = time.monotonic_ns()
        for i in range(RECORDS):
            record = bytearray(216)
            struct.pack_into("<I", record, 0, 10)
            struct.pack_into("<QQ", record, 16, now + 1000 * i, now + 1000 * i + 900)
            struct.pack_into("<I", record, 48, 7)
            struct.pack_into("<Q", record, 104, ctypes.addressof(name))
            fake.fake_cupti_add(bytes(record), ctypes.c_size_t(len(record)))

    return run


def train(layers: int, steps: int, library: str) -> None:
    """Prints the CPU seconds of the cheapest step in the second half."""
    import torch
    import transformers

    config = transformers.LlamaConfig(num_hidden_layers=layers, vocab_size=32000, hidden_size=4096, intermediate_size=14336)
    with torch.device("cuda"):
        model = transformers.LlamaForCausalLM(config).to(torch.bfloat16)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    ids = torch.zeros(1, 8192, dtype=torch.long, device="cuda")
    seconds, run_kernels = [], kernels(library)
    for _ in range(steps):
        begin = time.process_time()
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        torch.cuda.synchronize()
        run_kernels()
        seconds.append(time.process_time() - begin)
    print(json.dumps(min(seconds[steps // 2 :])))


def step_seconds(options: argparse.Namespace, trace: str, **more: str) -> float:
    environment = os.environ | _dryrun.environment("h200") | {"EBBTIDE": "1", "EBBTIDE_REPORT": "off", "EBBTIDE_TRACE": trace} | more
    environment["EBBTIDE_NATIVE_DIR"] = str(_native.folder().resolve())
    command = [sys.executable, __file__, "--inside", "--layers", str(options.layers), "--steps", str(options.steps)]
    done = subprocess.run([*command, "--cupti", options.cupti], env=environment, capture_output=True, text=True, timeout=600)
    if done.returncode:
        raise SystemExit(f"trace_cost: {done.stderr[-2000:]}")
    return float(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--stacks", action="store_true", help="also with stacks: python, cpp, all")
    parser.add_argument("--cupti", metavar="LIBRARY", default="", help="also with this hand-made libcupti")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        return train(options.layers, options.steps, options.cupti)
    kinds: dict[str, dict[str, str]] = {"a trace": {}}
    if options.stacks:
        kinds |= {f"stacks of {kind}": {"EBBTIDE_TRACE_STACKS": kind} for kind in ("python", "cpp", "all")}
    if options.cupti:
        kinds["CUPTI"] = {"EBBTIDE_CUPTI": str(pathlib.Path(options.cupti).resolve())}
    from ebbtide._reports import _reading

    taken: dict[str, list[float]] = {kind: [] for kind in ("", *kinds)}
    sizes: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "run.ebb")
        for turn in range(options.turns):
            taken[""].append(step_seconds(options, ""))
            print(f"turn {turn + 1} of {options.turns}: a step without a trace {1e3 * taken[''][-1]:.2f} ms", flush=True)
            for kind, settings in kinds.items():
                taken[kind].append(step_seconds(options, path, **settings))
                recording = _reading.read(path)
                sizes[kind] = (
                    f"{recording.events / options.steps:.0f} records a step, {os.path.getsize(path) / recording.events:.2f} bytes "
                    f"each, {os.path.getsize(path) / _memory_events(recording):.1f} an event, {recording.lost_events} lost"
                )
    for kind in kinds:
        pairs = [with_it - plain for with_it, plain in zip(taken[kind], taken[""], strict=True)]
        told = ", ".join(f"{1e3 * each:.2f}" for each in sorted(pairs))
        least = min(taken[kind]) - min(taken[""])
        print(f"with {kind}: CPU time of the cheapest step {1e3 * least:.2f} ms more (pairs: {told}); {sizes[kind]}")


def _memory_events(recording: Recording) -> int:
    """Those of the allocators, kernels and copies: what a user calls an event; names, owners and stacks belong to them."""
    return sum(device.states - 1 + (len(device.activity.work) if device.activity else 0) for device in recording.devices)


if __name__ == "__main__":
    main()
