"""alpha="auto" beside activation checkpointing where the link is slow, in mixtures of experts and on several ranks, in virtual time.

    python bench/auto_elsewhere.py [--rows "ddp,slow link"] [--json FILE]

One dry run a row and way: five layers, SGD. Of each way the shorter of the last two steps, and the part of it that it stood
still; `copies` is the part of all steps that was waited for copies, those that try shares included. The rest is collectives.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from typing import Any

HERE = pathlib.Path(__file__).resolve().parent
DEVICES = HERE.parent / "dryrun" / "devices"
_WAYS = ("checkpointing", "auto")
_STEPS, _SETTLING = 5, 72
_LAYERS = 5


@dataclasses.dataclass(frozen=True)
class Row:
    name: str
    device: str
    length: int
    model: str = "llama"
    mode: str = "one"  # or "ddp", "fsdp": eight ranks
    link: float = 1.0  # the part of the device file's link to the host

    @property
    def text(self) -> str:
        return f"{self.name}, {self.device}, {self.model}, {self.length}"


ROWS = (
    Row("slow link", "h200", 8192, link=0.25),
    Row("slow link", "l40s", 32768, link=0.25),
    *(Row("experts", "a800-80g", length, "qwen3_moe") for length in (8192, 16384, 32768)),
    *(
        Row(mode, device, length, mode=mode)
        for device in ("l40s", "rtx4090")
        for mode in ("ddp", "fsdp")
        for length in (8192, 32768)
    ),
)


def make_model(name: str, length: int, checkpointing: bool) -> Any:
    import models
    import scenarios
    import torch
    import transformers

    if name != "qwen3_moe":
        row = scenarios.Scenario("elsewhere", (length, length), model=name, layers=_LAYERS, checkpointing=checkpointing)
        return models.make_model(row, torch.device("cuda"), real_values=False)
    config = transformers.Qwen3MoeConfig(
        vocab_size=32000, hidden_size=2048, intermediate_size=6144, moe_intermediate_size=768, num_hidden_layers=_LAYERS,
        num_attention_heads=32, num_key_value_heads=4, head_dim=128, num_experts=128, num_experts_per_tok=8,
        max_position_embeddings=length, use_cache=False)  # fmt: skip
    with torch.device("meta"):
        model = transformers.Qwen3MoeForCausalLM(config).to(torch.bfloat16)
    model = model.to_empty(device="cuda").train()
    if checkpointing:
        model.gradient_checkpointing_enable()
    return model


def child(way: str, row: Row) -> None:
    """Trains; the steps' times come out of the dry run's report."""
    import ebbtide
    import torch

    if row.mode != "one":
        torch.distributed.init_process_group("nccl")
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    model = make_model(row.model, row.length, way == "checkpointing")
    if row.mode == "fsdp":
        for layer in model.model.layers:
            torch.distributed.fsdp.fully_shard(layer)
        torch.distributed.fsdp.fully_shard(model)
    if way == "auto":
        ebbtide.offload(model, host="128GiB")
    trained = torch.nn.parallel.DistributedDataParallel(model) if row.mode == "ddp" else model
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    ids = torch.zeros(1, row.length, dtype=torch.long, device="cuda")
    for _ in range(_SETTLING if way == "auto" else _STEPS):
        trained(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    told = ebbtide.stats().offload.models[-1] if way == "auto" else None
    print(json.dumps({"kept": told.kept_layers, "share": told.alpha} if told else {}))
    if row.mode != "one":
        torch.distributed.destroy_process_group()


def measure(way: str, row: Row, number: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as scratch:
        report, device = pathlib.Path(scratch) / "report.json", pathlib.Path(scratch) / "device.json"
        facts = json.loads((DEVICES / f"{row.device}.json").read_text())
        for direction in ("to_host", "to_device"):
            facts["host_link"][direction] *= row.link
        device.write_text(json.dumps(facts))
        ranks = [] if row.mode == "one" else ["--ranks", "8"]
        command = [sys.executable, "-m", "ebbtide", "dryrun", "--device", str(device), "--json", str(report), *ranks, "--"]
        program = [sys.executable, "-W", "ignore", str(HERE / "auto_elsewhere.py"), "--child", way, str(number)]
        done = subprocess.run([*command, *program], check=False, capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"{row.text}, {way}:\n{done.stderr}")
        time = json.loads(report.read_text())["time"]
    seconds, stalled = time["each_step_seconds"], time["each_step_stalled_seconds"]
    at = min(range(len(seconds) - 2, len(seconds)), key=seconds.__getitem__)
    copies = sum(time["stalled_seconds"][way] for way in ("copy_out", "copy_in")) / time["step_seconds"]
    told = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))
    return {"seconds": seconds[at], "stalled": stalled[at] / seconds[at], "copies": copies, **told}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", default="", help='names, such as "ddp,slow link" (default: all)')
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        return child(options.child[0], ROWS[int(options.child[1])])
    names = {name.strip() for name in options.rows.split(",") if name.strip()}
    if unknown := names - {row.name for row in ROWS}:
        parser.error(f"--rows {', '.join(sorted(unknown))}: allowed are {', '.join(sorted({row.name for row in ROWS}))}")
    print("| row | checkpointing: ms, stalled | auto: ms (beside it), stalled, copies | kept | share |\n" + "|---" * 5 + "|")
    found = []
    for number, row in enumerate(ROWS):
        if names and row.name not in names:
            continue
        base, auto = (measure(way, row, number) for way in _WAYS)
        found.append({**dataclasses.asdict(row), "checkpointing": base, "auto": auto})
        print(
            f"| {row.text} | {1000 * base['seconds']:.0f}, {100 * base['stalled']:.2f} % | {1000 * auto['seconds']:.0f} "
            f"({auto['seconds'] / base['seconds']:.3f}), {100 * auto['stalled']:.2f} %, {100 * auto['copies']:.2f} % "
            f"| {auto['kept']} | {auto['share']:.2f} |",
            flush=True,
        )
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
