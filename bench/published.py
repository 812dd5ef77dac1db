"""Dry runs beside what others published of eager PyTorch training on real GPUs.

    python bench/published.py                    all rows, about 5 minutes; --rows titan: some of them
    python bench/published.py --json out.json

The rows with their sources are in published_rows.py, the programs in published_gpt.py, published_llama.py,
published_mpt.py, published_nanogpt.py, published_hf.py and published_resnet.py. Predicted / published below 1: the prediction is too fast, or takes too little memory.
"""

from __future__ import annotations

import argparse
import json
import math
import pathlib
import tempfile
from collections.abc import Sequence
from typing import Any

from dry_run import dry_run
from published_rows import GIB, ROWS, SOURCES, VARIANTS, Row

_HERE = pathlib.Path(__file__).parent
_TIME_BAR, _MEMORY_BAR = 0.15, 0.05


def device_option(name: str, scratch: pathlib.Path) -> str:
    """What `--device` takes: a variant becomes a file of its own."""
    if name not in VARIANTS:
        return name
    like, changes = VARIANTS[name]
    facts = json.loads((_HERE.parent / "dryrun" / "devices" / f"{like}.json").read_text())
    path = scratch / f"{name}.json"
    merged = {key: facts[key] | value if isinstance(value, dict) else value for key, value in changes.items()}
    path.write_text(json.dumps(facts | merged))
    return str(path)


def run(row: Row, timeout: float) -> dict[str, Any]:
    file, *arguments = row.program
    settings = {"PYTORCH_CUDA_ALLOC_CONF": f"expandable_segments:{row.segments}"}
    if not row.cudnn:  # the torch of these figures took FlashAttention on H100s
        settings |= {"TORCH_CUDNN_SDPA_DEPRIORITIZED": "1"}
    with tempfile.TemporaryDirectory() as scratch:
        device = device_option(row.device, pathlib.Path(scratch))
        done = dry_run([str(_HERE / file), *arguments], device, row.ranks, settings, timeout)
    return {"error": done.error} if done.error else compared(row, done.printed)


def compared(row: Row, printed: dict[str, Any]) -> dict[str, Any]:
    """Seconds of a step and GiB held, published and predicted, and predicted / published."""
    seconds = row.seconds or printed["tokens"] / row.tokens_per_second
    found = {
        "published_seconds": seconds,
        "seconds": printed["seconds"],
        "time_ratio": printed["seconds"] / seconds,
        "gib": printed["reserved"] / GIB,
    }
    if row.reserved_gib:
        found |= {"memory_ratio": found["gib"] / row.reserved_gib}
    return found


def written(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds > 2 else f"{1000 * seconds:.1f} ms"


def cells(row: Row, found: dict[str, Any]) -> list[str]:
    start = [row.source, row.name, row.device]
    if "error" in found:
        return [*start, found["error"], *[""] * 5]
    times = [written(found[key]) for key in ("published_seconds", "seconds")]
    memory = ["-", f"{found['gib']:.2f}", "-"]
    if row.reserved_gib:
        memory = [f"{row.reserved_gib:.2f}", memory[1], f"{found['memory_ratio']:.3f}"]
    return [*start, *times, f"{found['time_ratio']:.2f}", *memory]


def summary(name: str, ratios: Sequence[float], bar: float) -> str:
    if not ratios:
        return f"{name}: none"
    within = sum(abs(ratio - 1) <= bar for ratio in ratios)
    middle = math.exp(sum(map(math.log, ratios)) / len(ratios))
    return f"{name}: {within} of {len(ratios)} within {bar:.0%}, {min(ratios):.2f} to {max(ratios):.2f}, geometric mean {middle:.2f}"


def summaries(rows: Sequence[Row], found: Sequence[dict[str, Any]]) -> list[str]:
    lines = []
    for group, text in (("found", "rows that faults were found with"), ("other", "all others")):
        of_group = [one for row, one in zip(rows, found, strict=True) if row.group == group]
        for key, bar in (("time_ratio", _TIME_BAR), ("memory_ratio", _MEMORY_BAR)):
            ratios = [one[key] for one in of_group if key in one]
            lines.append(summary(f"{text}, {key.split('_')[0]}", ratios, bar))
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", default="", help="only sources and names that hold this text")
    parser.add_argument("--json", type=pathlib.Path, help="write all figures there")
    parser.add_argument("--timeout", type=float, default=1800, help="seconds for one row")
    options = parser.parse_args()
    rows = [row for row in ROWS if options.rows in f"{row.source} {row.name}"]
    print("| source | program | device | step published | predicted | ratio | GiB reserved | predicted | ratio |")
    print("|---|---|---|---|---|---|---|---|---|")
    found = []
    for row in rows:
        found.append(run(row, options.timeout))
        print("| " + " | ".join(cells(row, found[-1])) + " |", flush=True)
    print("", *summaries(rows, found), "", sep="\n")
    for source in dict.fromkeys(row.source for row in rows):
        print(f"{source}: {SOURCES[source]}")
    if options.json:
        options.json.write_text(json.dumps([{"row": row.name} | one for row, one in zip(rows, found, strict=True)], indent=1))


if __name__ == "__main__":
    main()
