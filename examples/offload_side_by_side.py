"""Runs train_llama.py as it is, with checkpointing, and with EBBTIDE_OFFLOAD, and prints them side by side.

Not a line of train_llama.py is changed. On a GPU if there is one; otherwise with real numbers on CPU
tensors, where the losses are compared, and at 8B width on a simulated 141 GB GPU, where memory is.

    python examples/offload_side_by_side.py --length 65536
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from typing import Any

TRAIN = pathlib.Path(__file__).with_name("train_llama.py")
_GIB = 1 << 30
# The columns: arguments of train_llama.py, and environment variables.
WAYS: dict[str, tuple[list[str], dict[str, str]]] = {
    "plain": ([], {}),
    "checkpointing": (["--checkpointing"], {}),
    "offload 0": ([], {"EBBTIDE_OFFLOAD": "0"}),
    "offload 0.5": ([], {"EBBTIDE_OFFLOAD": "0.5"}),
}


def run(way: str, arguments: list[str], simulated: bool) -> dict[str, Any] | None:
    """The numbers of one run; None if it ran out of memory."""
    more, variables = WAYS[way]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("EBBTIDE")}
    if "EBBTIDE_NATIVE_DIR" in os.environ:
        environment["EBBTIDE_NATIVE_DIR"] = os.environ["EBBTIDE_NATIVE_DIR"]
    with tempfile.TemporaryDirectory() as folder:
        numbers = pathlib.Path(folder) / "run.json"
        command = [sys.executable, str(TRAIN), *arguments, *more, "--json", str(numbers)]
        if simulated:
            on = ["dryrun", "--device", "h200", "--"]
            command = [sys.executable, "-m", "ebbtide", *on, *command, "--simulated"]
            environment["EBBTIDE_HOST"] = "128GiB"  # of the machine around the simulated device
        done = subprocess.run(
            command, env=environment | variables, capture_output=True, text=True
        )
        if numbers.exists():
            _print_report(way, done.stderr)
            result: dict[str, Any] = json.loads(numbers.read_text())
            return result
    if "OutOfMemoryError" in done.stderr:
        return None
    raise SystemExit(f"ebbtide error the run failed:\n{done.stderr}")


def _print_report(way: str, text: str) -> None:
    lines = text.splitlines()
    begin = next((n for n, line in enumerate(lines) if line.startswith("ebbtide offload")), None)
    if begin is not None:
        print(f"\n{way}:")
        print("\n".join(line for line in lines[begin:] if not line.startswith("ebbtide dryrun")))


def _loss(found: dict[str, Any]) -> str:
    return "not computed" if found["last_loss"] is None else f"{found['last_loss']:.5f}"


def _memory(found: dict[str, Any]) -> str:
    peak = found.get("peak_live_bytes")
    return "not counted" if peak is None else f"{peak / _GIB:.2f} GiB"


def compare(title: str, arguments: list[str], simulated: bool = False) -> None:
    print(f"\n=== {title}", flush=True)
    found = {way: run(way, arguments, simulated) for way in WAYS}
    rows = {"last loss": _loss, "peak live": _memory, "step (median)": lambda r: f"{r['step_ms']:.0f} ms"}
    print("\n" + " " * 16 + "".join(f"{way:>16}" for way in WAYS))
    for name, show in rows.items():
        cells = ("out of memory" if one is None else show(one) for one in found.values())
        print(f"{name:16}" + "".join(f"{cell:>16}" for cell in cells), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=20, help="of the runs that compute")
    parser.add_argument("--length", type=int, default=65536, help="at 8B width")
    options = parser.parse_args()
    import torch

    wide = ["--size", "8b-width", "--device", "cuda", "--length", str(options.length), "--steps", "3"]
    if torch.cuda.is_available():
        compare(f"8B width, 8 layers, on {torch.cuda.get_device_name()}", wide)
        return
    small = ["--device", "cpu", "--steps", str(options.steps), "--every", "1000"]
    compare("A small Llama on CPU tensors, real numbers", small)
    compare("8B width, 8 layers, on a simulated H200 with 141 GB", wide, simulated=True)


if __name__ == "__main__":
    main()
