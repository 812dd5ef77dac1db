"""The longest sequence for Llama-8B shapes on simulated devices: plain torch, its ways out, ours.

bfloat16 parameters, gradients and AdamW states, batch 1; lengths in steps of 8K tokens. Anchors are
published or were measured with the same program; `bench/README.md` says which.

    python bench/longest_length.py                      all rows
    python bench/longest_length.py --rows 80GB --json out.json
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import pathlib
import subprocess
import sys
from typing import Any

_WORKER = pathlib.Path(__file__).with_name("longest_run.py")
# The same allocator for all; a failed length must leave nothing behind.
_SETTINGS = {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True", "EBBTIDE": "0"}
_KI, _GIB = 1024, 1 << 30
_DEVICES = {"80GB": ("h100-80g", "80GiB"), "141GB": ("h200", "141GiB")}


@dataclasses.dataclass(frozen=True)
class Row:
    device: str
    name: str
    arguments: str
    anchor: str = ""
    must_reach: int = 0  # K tokens; 0: nothing is asked of it
    fresh: bool = False  # each length in a process of its own: a failed one leaves tensors behind

    @property
    def key(self) -> str:
        return f"{self.device} {self.name}"


ROWS = (
    Row("80GB", "plain", "plain --precision 1024 --highest 65536", "4K"),
    Row("80GB", "checkpointing", "checkpointing --precision 1024 --highest 65536", "17K"),
    Row("80GB", "save_on_cpu", "save_on_cpu --precision 1024 --highest 65536", "20K"),
    Row("80GB", "TRL offload", "trl --precision 1024 --highest 65536", fresh=True),
    Row("80GB", "128 GiB host", "ours --host 128GiB --highest 524288", "MsT 60K", 280),
    Row("80GB", "1 TiB host", "ours --host 1TiB --highest 786432", "", 400),
    Row("80GB", "1 TiB host, optimizer in backward", "ours --in-backward --host 1TiB --highest 1048576", "MsT 60K", 650),
    Row("80GB", "128 GiB host, attention recomputed", "ours --attention recompute --host 128GiB --highest 786432", "", 400),
    Row("80GB", "LoRA, 128 GiB host", "ours --lora --host 128GiB --highest 786432", "StreamBP 142K, Unsloth (4 bit) 342K", 330),
    Row("80GB", "LoRA, 1 TiB host", "ours --lora --host 1TiB --highest 1572864", "", 1200),
    Row("141GB", "plain", "plain --precision 1024 --highest 131072", "12K"),
    Row("141GB", "checkpointing", "checkpointing --precision 1024 --highest 131072", "48K"),
    Row("141GB", "save_on_cpu", "save_on_cpu --precision 1024 --highest 131072", "56K"),
    Row("141GB", "TRL offload", "trl --precision 1024 --highest 131072", fresh=True),
    Row("141GB", "128 GiB host", "ours --host 128GiB --highest 786432", "", 390),
    Row("141GB", "1 TiB host", "ours --host 1TiB --highest 1835008", "", 1400),
    Row("141GB", "128 GiB host, attention recomputed", "ours --attention recompute --host 128GiB --highest 1048576", "", 700),
)  # fmt: skip


def bisect(row: Row, timeout: float) -> dict[str, Any]:
    """The result of the longest length that runs in a process of its own."""
    way, _, step, _, highest = row.arguments.split()
    precision = int(step)
    best: dict[str, Any] = {"longest": 0}
    low, high = 0, int(highest) // precision
    while high - low > 1:
        middle = (low + high) // 2
        alone = f"{way} --precision {middle * precision} --highest {middle * precision}"
        found = run(dataclasses.replace(row, arguments=alone), timeout)
        if "error" in found:
            return found
        if found["longest"]:
            best, low = found, middle
        else:
            high = middle
    return best


def run(row: Row, timeout: float) -> dict[str, Any]:
    """The worker's JSON; `error` is set when there is none."""
    device, capacity = _DEVICES[row.device]
    simulated = ["-m", "ebbtide", "dryrun", "--device", device, "--capacity", capacity, "--"]
    command = [sys.executable, *simulated, sys.executable, str(_WORKER), *row.arguments.split()]
    try:
        done = subprocess.run(
            command, env=os.environ | _SETTINGS, capture_output=True, text=True, timeout=timeout
        )
    except subprocess.TimeoutExpired:
        return {"error": f"no result after {timeout:.0f} s"}
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if not lines:
        # Not what reports print at exit.
        said = [line for line in done.stderr.splitlines() if not line.startswith(("ebbtide ", " "))]
        return {"error": said[-1].strip() if said else f"exit {done.returncode}"}
    result: dict[str, Any] = json.loads(lines[-1])
    return result


def cells(row: Row, found: dict[str, Any]) -> list[str]:
    if "error" in found:
        return [row.device, row.name, found["error"]]
    reached = found["longest"] // _KI
    wanted = "-"
    if row.must_reach:
        wanted = f">= {row.must_reach}K {'yes' if reached >= row.must_reach else 'NO'}"
    slope = f"{found['bytes_per_token'] / _KI:.1f}" if "bytes_per_token" in found else "-"
    host = f"{found['host_bytes'] / _GIB:.1f}" if "host_bytes" in found else "-"
    peak = f"{found['peak_bytes'] / _GIB:.1f}" if "peak_bytes" in found else "-"
    return [row.device, row.name, f"{reached}K", row.anchor or "-", wanted, peak, slope, host]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", default="", help="only rows whose name holds this text")
    parser.add_argument("--timeout", type=float, default=3600, help="seconds for one row")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write the results there")
    options = parser.parse_args()
    print("| device | training | longest | anchor | must reach | peak GiB | KiB a token | host GiB |")
    print("|---|---|---|---|---|---|---|---|")
    measured = []
    for row in ROWS:
        if options.rows not in row.key:
            continue
        found = (bisect if row.fresh else run)(row, options.timeout)
        measured.append({"row": row.key, "arguments": row.arguments, **found})
        print("| " + " | ".join(cells(row, found)) + " |", flush=True)
        if options.json:
            options.json.write_text(json.dumps(measured, indent=1) + "\n")


if __name__ == "__main__":
    main()
