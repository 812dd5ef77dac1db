"""Offload as it is by default beside activation checkpointing and no saving at all: steps and memory, in virtual time.

    python bench/beside_checkpointing.py [--devices h200,l40s] [--models llama,qwen3] [--lengths 4096,16384] [--json FILE]
    python bench/beside_checkpointing.py --models gemma2-eager --lengths 4096 --ways whole,checkpointing,auto,scores

One dry run a row and way: five layers of 8B width and a vocabulary of 32,000 words, or those of other_models.py, eight
of width 2048; SGD. Of each way the shortest of the last two steps, and the most bytes that were alive from the third
on; -: out of memory. `kept` is how many layers keep all they save with "auto", and `share` what it settled on for the
others. `scores`: alpha=0, attention="save".
"""

from __future__ import annotations

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
from typing import Any

from other_models import NAMES

HERE = pathlib.Path(__file__).resolve().parent
WAYS = ("whole", "checkpointing", "auto", "pieces", "scores")
_DEFAULT_WAYS = WAYS[:4]
_STEPS, _SETTLING = 5, 72  # with "auto": until it has settled
_PIECE = 1664  # tokens whose activations weigh as much as a layer: the way to little memory
_LAYERS, _OTHER_LAYERS = 5, 8
_MODELS = ("llama", "qwen3", "gpt2")  # of models.py
_GIB = 1 << 30


def make_model(name: str, length: int) -> Any:
    import models
    import other_models
    import scenarios
    import torch

    if name in NAMES:
        return other_models.make_model(name, _OTHER_LAYERS, length)
    row = scenarios.Scenario("beside", (length, length), model=name, layers=_LAYERS, checkpointing=False)
    return models.make_model(row, torch.device("cuda"), real_values=False)


def child(way: str, model_name: str, length: int) -> None:
    """Trains; the steps' times come out of the dry run's report."""
    import ebbtide
    import torch

    model = make_model(model_name, length)
    if way == "checkpointing":
        model.gradient_checkpointing_enable()
    elif way != "whole":
        settings = {"pieces": {"mini_sequence": _PIECE}, "scores": {"alpha": 0, "attention": "save"}}
        ebbtide.offload(model, host="128GiB", **settings.get(way, {}))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    ids = torch.zeros(1, length, dtype=torch.long, device="cuda")
    for step in range(_STEPS if way in WAYS[:2] else _SETTLING):
        if step == 2:
            torch.cuda.reset_peak_memory_stats()
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    told = ebbtide.stats().offload.models if way in WAYS[2:] else ()
    share, kept = (told[-1].alpha, told[-1].kept_layers) if told else (None, None)
    print(json.dumps({"live": torch.cuda.max_memory_allocated(), "share": share, "kept": kept}))


def measure(device: str, way: str, model: str, length: int) -> dict[str, Any] | None:
    """None: out of memory."""
    with tempfile.TemporaryDirectory() as scratch:
        report = pathlib.Path(scratch) / "report.json"
        command = [sys.executable, "-m", "ebbtide", "dryrun", "--device", device, "--json", str(report), "--"]
        program = [sys.executable, "-W", "ignore", str(HERE / "beside_checkpointing.py"), "--child", way]
        done = subprocess.run(
            [*command, *program, "--models", model, "--lengths", str(length)], check=False, capture_output=True, text=True
        )
        if "OutOfMemoryError" in done.stderr:
            return None
        done.check_returncode()
        seconds = json.loads(report.read_text())["time"]["each_step_seconds"]
    return {"seconds": min(seconds[-2:]), **json.loads(done.stdout.strip().splitlines()[-1])}


def line(row: dict[str, Any], ways: list[str]) -> str:
    base = row.get("checkpointing")
    cells = []
    for way in ways:
        found = row[way]
        beside = f" ({found['seconds'] / base['seconds']:.3f})" if found and base and way in WAYS[2:] else ""
        cells.append(f"{1000 * found['seconds']:.0f}{beside}, {found['live'] / _GIB:.1f}" if found else "-")
    settled = f"{row['auto']['kept']} | {row['auto']['share']:.2f}" if row.get("auto") else "- | -"
    return f"| {row['device']} | {row['model']}, {row['length']} | " + " | ".join(cells) + f" | {settled} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--devices", default="h200,a100-80g,l40s")
    parser.add_argument("--models", default="llama", help="of " + ", ".join((*_MODELS, *NAMES)))
    parser.add_argument("--lengths", default="4096,16384,32768,65536")
    parser.add_argument("--ways", default=",".join(_DEFAULT_WAYS), help="of " + ", ".join(WAYS))
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    lengths = [int(length) for length in options.lengths.split(",")]
    if options.child:
        return child(options.child, options.models, lengths[0])
    ways = options.ways.split(",")
    for setting, given, allowed in (("ways", ways, WAYS), ("models", options.models.split(","), (*_MODELS, *NAMES))):
        if unknown := set(given) - set(allowed):
            parser.error(f"--{setting}: {', '.join(sorted(unknown))} (allowed: {', '.join(allowed)})")
    print("ms a step (beside checkpointing), GiB alive at the peak\n")
    titles = {"pieces": f"auto, pieces of {_PIECE}", "scores": 'alpha=0, attention="save"'}
    columns = ["device", "model, tokens", *(titles.get(way, way) for way in ways), "kept", "share"]
    print(f"| {' | '.join(columns)} |\n" + "|---" * len(columns) + "|")
    rows = []
    for device in options.devices.split(","):
        for model in options.models.split(","):
            for length in lengths:
                found = {way: measure(device, way, model, length) for way in ways}
                rows.append({"device": device, "model": model, "length": length, **found})
                print(line(rows[-1], ways), flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
