"""ALST's rows for one H200 (Llama-8B: 65K, 300K, 650K, 1.2M tokens) as dry runs, and our offload beside them.

    python bench/alst.py                    each row at ALST's length: does it fit, and what is held; about 5 minutes
    python bench/alst.py --longest          also the longest lengths that fit, in steps of 5 %; about 10 minutes

Published: the recipes for one H200 in ArcticTraining (projects/sequence-parallelism, commit 5885b9f; arXiv 2506.13996), with
the memory that their comments report. What alst_run.py says is different: parameters, gradients and optimizer states are
away from the device because FSDP2 shards them over 512 ranks, not because they are in host memory; FlashAttention-2; Liger's
kernels are written in torch.
"""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
from typing import Any

from dry_run import dry_run

_WORKER = pathlib.Path(__file__).with_name("alst_run.py")
_GIB = 1 << 30
_RANKS = 512
_STEP = 0.05  # of ALST's length
_MOST_STEPS = 8


@dataclasses.dataclass(frozen=True)
class Row:
    way: str
    text: str
    tokens: int
    published_gib: float


ROWS = (
    Row("baseline", "checkpointing", 65_000, 137.36),
    Row("tiled-loss", "and fused loss", 300_000, 134.96),
    Row("checkpoint-offload", "and checkpoints in host memory", 650_000, 126.81),
    Row("tiled-mlp", "and tiled MLP", 1_200_000, 136.15),
)


def run(way: str, tokens: int, options: argparse.Namespace) -> dict[str, Any]:
    """`fits`, `held` and `live` bytes; `error` where it failed otherwise."""
    program = [str(_WORKER), "--way", way, "--tokens", str(tokens), "--host", options.host]
    done = dry_run(program, "h200", _RANKS, timeout=options.timeout)
    if done.error:
        return {"error": done.error}
    return done.printed | {"held": done.held, "retries": done.retries, "host": done.report["peak_pinned_bytes"]}


def longest(way: str, start: int, step: int, options: argparse.Namespace) -> tuple[int, int]:
    """The longest multiple of a step beyond `start` or below it that fits, and that fits without a retry of torch's
    allocator, which empties its cache then; 0 where none was found."""
    fits = smooth = 0
    for tokens in range(start, start + _MOST_STEPS * step, step):
        found = run(way, tokens, options)
        if not found.get("fits", False):
            break
        fits = tokens
        if not found["retries"]:
            smooth = tokens
    for tokens in range(start - step, start - _MOST_STEPS * step, -step):
        if fits and smooth:
            break
        found = run(way, tokens, options)
        if found.get("fits", False):
            fits = fits or tokens
            smooth = smooth or (0 if found["retries"] else tokens)
    return fits, smooth


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", default="", help="only ways that hold this text")
    parser.add_argument("--longest", action="store_true", help="also search the longest that fits")
    parser.add_argument("--ours", type=int, default=1_572_864, metavar="TOKENS", help="our row's length; 0: none")
    parser.add_argument("--host", default="1TiB", help="host memory for ours")
    parser.add_argument("--timeout", type=float, default=1800, help="seconds for one run")
    options = parser.parse_args()
    print("| Llama-8B, one H200 | tokens | ALST reports | held | live | fits | retries | longest | without a retry |")
    print("|---|---|---|---|---|---|---|---|---|")
    rows = [*ROWS, Row("ours", f"ebbtide.offload, {options.host} of host memory", options.ours, 0)]
    for row in rows:
        if options.rows not in row.way or not row.tokens:
            continue
        found = run(row.way, row.tokens, options)
        published = f"{row.published_gib:.1f} GB" if row.published_gib else "-"
        if "error" in found:
            print(f"| {row.text} | {row.tokens} | {published} | {found['error']} | | | | | |", flush=True)
            continue
        most = "- | -"
        if options.longest:
            reached = longest(row.way, row.tokens, int(row.tokens * _STEP), options)
            most = " | ".join(f"{tokens} ({tokens / row.tokens:.2f})" for tokens in reached)
        sizes = f"{found['held'] / _GIB:.1f} GiB | {found['live_bytes'] / _GIB:.1f} GiB"
        fits = "yes" if found["fits"] else "no"
        print(f"| {row.text} | {row.tokens} | {published} | {sizes} | {fits} | {found['retries']} | {most} |", flush=True)


if __name__ == "__main__":
    main()
