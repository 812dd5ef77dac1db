"""MEMO's headline as a dry run: 7B, 1M tokens, 8 x A800-80G, tensor parallel 8, beside what was published.

    python bench/memo_run.py                        about 8 minutes on two cores; what is assumed stands under the table
    python bench/memo_run.py --tokens 262144 --layers 4

A real program (memo_train.py, parallel_gpt.py) runs as rank 0 of 8 on a simulated A800, with offload at MEMO's alpha and
with plain checkpointing: whether it fits, alpha and what limits it, a step's time, MFU. bench/memo.py has the same by arithmetic.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
from typing import Any

from dry_run import OUT_OF_MEMORY, dry_run

_WORKER = pathlib.Path(__file__).with_name("memo_train.py")
_GIB = 1 << 30
_WAYS = {
    "memo": ("offload, alpha as MEMO chooses it", "52.30 %"),
    "checkpointing": ("plain checkpointing", "Megatron 23.91 %, DeepSpeed 23.26 % (averages, v1)"),
}


def run(way: str, tokens: int, options: argparse.Namespace) -> dict[str, Any]:
    """What the program printed, and the dry run's report as `report`; `error` where it failed."""
    program = [str(_WORKER), "--way", way, "--tokens", str(tokens)]
    program += ["--layers", str(options.layers), "--host", options.host]
    done = dry_run(program, options.device, options.ranks, timeout=options.timeout)
    if done.error:
        return {"error": done.error}
    return done.printed | {"report": done.report, "assumed": done.assumed}


def longest(way: str, options: argparse.Namespace) -> tuple[int, dict[str, Any]]:
    """The length asked for; if that is out of memory, the longest of some eighths of it that is not."""
    found: dict[str, Any] = {}
    for eighths in range(8, 0, -1):
        tokens = options.tokens * eighths // 8
        found = run(way, tokens, options)
        if found.get("error") != OUT_OF_MEMORY:
            return tokens, found
        print(f"{way}: {tokens} tokens: {OUT_OF_MEMORY}", file=sys.stderr, flush=True)
    return options.tokens, found


def cells(way: str, tokens: int, found: dict[str, Any]) -> list[str]:
    name, published = _WAYS[way]
    if "error" in found:
        return [name, str(tokens), found["error"], *["-"] * 6, published]
    report, time = found["report"], found["report"]["time"]
    device = max(report["devices"], key=lambda one: one["peak_bytes"])
    # The steps before the last one are those in which alpha is chosen.
    last = time["each_step_seconds"][-1]
    mfu = time["mfu"] * time["step_seconds"] / last
    held = f"{device['peak_bytes'] / _GIB:.1f} of {device['capacity_bytes'] / _GIB:.1f}"
    alpha = f"{found['alpha']:.3f}, {found['limit'] or 'none'}" if "alpha" in found else "-"
    host = f"{found['host_bytes'] / _GIB:.0f}" if "host_bytes" in found else "-"
    collectives = f"{100 * time['collective_seconds'] / time['step_seconds']:.1f} %"
    # Of the same steps, but the first.
    stalls = f"{100 * sum(time['stalled_seconds'].values()) / time['step_seconds']:.1f} %"
    figures = [f"{last:.1f} s", collectives, stalls, f"{100 * mfu:.1f} %"]
    return [name, str(tokens), held, alpha, host, *figures, published]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="a800-80g")
    parser.add_argument("--ranks", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=1 << 20)
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--host", default="2TB", help="host memory of all ranks together")
    parser.add_argument("--ways", default=",".join(_WAYS))
    parser.add_argument("--timeout", type=float, default=3600, help="seconds for one row")
    options = parser.parse_args()
    print(f"{options.layers} layers, {options.tokens} tokens, {options.ranks} x {options.device}, {options.host} of host memory\n")
    print("| training | tokens | held GiB | alpha, limit | host GiB a rank | step | collectives | stalls | MFU | MEMO's paper |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    assumed: dict[str, None] = {}
    for way in options.ways.split(","):
        tokens, found = longest(way, options)
        print("| " + " | ".join(cells(way, tokens, found)) + " |", flush=True)
        assumed |= dict.fromkeys(found.get("assumed", []))
    print("", *assumed, sep="\n")


if __name__ == "__main__":
    main()
