"""What a trace costs: CPU time of a training step with EBBTIDE_TRACE and without, and bytes an event.

A Hugging Face Llama at 8B width in bf16 with fused AdamW, served by Ebbtide on a simulated GPU, where a step is host
time alone: on a real device that time lies behind the device's work. All threads are counted, the writer's too; the
smallest of many steps, in processes in turn.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "python_shim"))

from ebbtide import _dryrun, _native  # noqa: E402


def train(layers: int, steps: int) -> None:
    """Prints the CPU seconds of the cheapest step in the second half."""
    import torch
    import transformers

    config = transformers.LlamaConfig(num_hidden_layers=layers, vocab_size=32000, hidden_size=4096, intermediate_size=14336)
    with torch.device("cuda"):
        model = transformers.LlamaForCausalLM(config).to(torch.bfloat16)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    ids = torch.zeros(1, 8192, dtype=torch.long, device="cuda")
    seconds = []
    for _ in range(steps):
        begin = time.process_time()
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        torch.cuda.synchronize()
        seconds.append(time.process_time() - begin)
    print(json.dumps(min(seconds[steps // 2 :])))


def step_seconds(options: argparse.Namespace, trace: str) -> float:
    environment = os.environ | _dryrun.environment("h200") | {"EBBTIDE": "1", "EBBTIDE_REPORT": "off", "EBBTIDE_TRACE": trace}
    environment["EBBTIDE_NATIVE_DIR"] = str(_native.folder().resolve())
    command = [sys.executable, __file__, "--inside", "--layers", str(options.layers), "--steps", str(options.steps)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    if done.returncode:
        raise SystemExit(f"trace_cost: {done.stderr[-2000:]}")
    return float(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        return train(options.layers, options.steps)
    from ebbtide._reports import _reading

    more = []
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "run.ebb")
        for _ in range(options.turns):
            plain, traced = step_seconds(options, ""), step_seconds(options, path)
            more.append(traced - plain)
            print(f"CPU time of a step: {1e3 * plain:.2f} ms, with a trace {1e3 * traced:.2f} ms")
        recording = _reading.read(path)
        print(
            f"median difference {1e3 * statistics.median(more):.2f} ms a step; {recording.events / options.steps:.0f} events a step, "
            f"{os.path.getsize(path) / recording.events:.2f} bytes an event, {recording.lost_events} lost"
        )


if __name__ == "__main__":
    main()
