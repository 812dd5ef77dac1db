"""The training programs that are measured: one row each, every part of it an option.

`python bench/scenarios.py` lists them. A scenario says what a program does; models.py makes the
model, training.py runs it, run_row.py measures one run.
"""

from __future__ import annotations

import argparse
import dataclasses
import random
from collections.abc import Iterator


@dataclasses.dataclass(frozen=True)
class Scenario:
    """A training program. Lengths and batches are drawn uniformly, ends included, for every pass."""

    name: str
    lengths: tuple[int, int]
    batches: tuple[int, int] = (1, 1)
    checkpointing: bool = False
    micro_batches: int = 1
    evaluate_every: int = 0  # steps; 0: never
    zero_grad: str = "end"  # end: after the optimizer; start: before the forward; after_forward
    clip: bool = False
    foreach: bool = False  # foreach AdamW; otherwise fused
    masks: bool = False  # padding, so that the model builds dense length x length masks
    offload: float = -1.0  # share alpha of tokens for ebbtide.offload; negative: without it
    model: str = "llama"
    hidden: int = 4096
    mlp: int = 14336
    heads: int = 32
    kv_heads: int = 8
    layers: int = 8
    vocabulary: int = 32000
    dtype: str = "bfloat16"
    steps: int = 20
    settle_after: int = 5  # steps before the "settled" measurement begins
    seed: int = 1

    def shapes(self) -> Iterator[tuple[int, int]]:
        """(batch, length) of one pass after the other; the same for the same seed."""
        draw = random.Random(self.seed)
        while True:
            yield draw.randint(*self.batches), draw.randint(*self.lengths)


_KI = 1024
_PLAIN = (
    Scenario("fixed-8k", (8192, 8192)),
    Scenario("fixed-64k", (65536, 65536), checkpointing=True),
    Scenario("random-128k", (16 * _KI, 128 * _KI), checkpointing=True),
    Scenario("random-batch", (4 * _KI, 32 * _KI), batches=(1, 4), checkpointing=True),
    Scenario("micro-batches", (16 * _KI, 128 * _KI), checkpointing=True, micro_batches=4),
    Scenario("evaluation", (2 * _KI, 16 * _KI), evaluate_every=4),
    Scenario(
        "late-zero-grad",
        (2 * _KI, 16 * _KI),
        zero_grad="after_forward",
        clip=True,
        foreach=True,
    ),
)
_ALPHAS = (0.0, 0.5, 1.0)
_OFFLOADED = (
    *(Scenario(f"fixed-64k-offload-{a:g}", (64 * _KI, 64 * _KI), offload=a) for a in _ALPHAS),
    *(Scenario(f"random-128k-offload-{a:g}", (16 * _KI, 128 * _KI), offload=a) for a in _ALPHAS),
)
# The same with dense masks: at 128K one mask alone is 32 GiB, so there the device may not suffice.
ROWS = {row.name: row for row in _PLAIN} | {
    f"{row.name}-masks": dataclasses.replace(row, name=f"{row.name}-masks", masks=True)
    for row in _PLAIN
} | {row.name: row for row in _OFFLOADED}


def _pair(text: str) -> tuple[int, int]:
    low, _, high = text.partition("-")
    return int(low), int(high or low)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options that change a row: `--lengths 9000-90000 --model qwen3 --seed 7`."""
    add = parser.add_argument_group("changes to the scenario (default: the row's own)").add_argument
    add("--lengths", type=_pair, metavar="A-B")
    add("--batches", type=_pair, metavar="A-B")
    add("--model", choices=["llama", "qwen3", "gpt2", "encoder", "plain"])
    for name in ("hidden", "mlp", "heads", "kv_heads", "layers", "vocabulary"):
        add(f"--{name.replace('_', '-')}", type=int)
    for name in ("steps", "settle_after", "seed", "micro_batches", "evaluate_every"):
        add(f"--{name.replace('_', '-')}", type=int)
    add("--offload", type=float, metavar="ALPHA")
    add("--zero-grad", choices=["end", "start", "after_forward"])
    add("--dtype", choices=["bfloat16", "float32"])
    for name in ("checkpointing", "clip", "foreach", "masks"):
        add(f"--{name}", action=argparse.BooleanOptionalAction, default=None)


def apply_arguments(row: Scenario, options: argparse.Namespace) -> Scenario:
    fields = {field.name for field in dataclasses.fields(Scenario)}
    changes = {k: v for k, v in vars(options).items() if k in fields and v is not None}
    return dataclasses.replace(row, **changes)


def as_arguments(row: Scenario) -> list[str]:
    """The command line that turns ROWS[row.name] into `row`."""
    arguments = [row.name]
    base = ROWS[row.name]
    for field in dataclasses.fields(Scenario):
        value = getattr(row, field.name)
        if field.name == "name" or value == getattr(base, field.name):
            continue
        flag = field.name.replace("_", "-")
        if isinstance(value, bool):
            arguments.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            text = "-".join(map(str, value)) if isinstance(value, tuple) else str(value)
            arguments += [f"--{flag}", text]
    return arguments


def chosen_rows(text: str) -> list[Scenario]:
    """From `all`, or names and numbers (1 is the first), separated by commas."""
    if text == "all":
        return list(ROWS.values())
    names = list(ROWS)
    rows = []
    for part in text.split(","):
        name = names[int(part) - 1] if part.isdigit() and 0 < int(part) <= len(names) else part
        if name not in ROWS:
            raise SystemExit(f"unknown row {part}: allowed are 1 to {len(names)}, {', '.join(names)}")
        rows.append(ROWS[name])
    return rows


if __name__ == "__main__":
    for number, scenario in enumerate(ROWS.values(), 1):
        changed = {
            field.name: getattr(scenario, field.name)
            for field in dataclasses.fields(Scenario)
            if field.name != "name" and getattr(scenario, field.name) != field.default
        }
        print(f"{number:3} {scenario.name:22} {changed}")
