"""Runs train_llama.py without Ebbtide and with EBBTIDE=1, and prints what they reached side by side.

On a GPU if there is one. Otherwise twice: with real numbers on CPU tensors, and at 8B width on a
simulated 141 GB GPU, where memory is exact and nothing is computed. scripts/demo calls this.
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
_MIB = 1 << 20


def run(title: str, arguments: list[str], ebbtide: bool, simulated: bool) -> dict[str, Any]:
    print(f"\n--- {title}, {'EBBTIDE=1' if ebbtide else 'without Ebbtide'}", flush=True)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("EBBTIDE")}
    if "EBBTIDE_NATIVE_DIR" in os.environ:
        environment["EBBTIDE_NATIVE_DIR"] = os.environ["EBBTIDE_NATIVE_DIR"]
    environment["EBBTIDE"] = "1" if ebbtide else "0"
    with tempfile.TemporaryDirectory() as folder:
        numbers = pathlib.Path(folder) / "run.json"
        command = [sys.executable, str(TRAIN), *arguments, "--json", str(numbers)]
        if simulated:
            on = ["dryrun", "--device", "h200", "--"]
            command = [sys.executable, "-m", "ebbtide", *on, *command]
        code = subprocess.run(command, env=environment).returncode
        if code or not numbers.exists():
            raise SystemExit(f"ebbtide error the run ended with exit code {code}, see above")
        result: dict[str, Any] = json.loads(numbers.read_text())
    if ebbtide and not result.get("ebbtide"):
        raise SystemExit("ebbtide error Ebbtide did not start in that run, see its warning above")
    return result


def _bytes(count: int | None) -> str:
    if count is None:
        return "-"
    return f"{count / _GIB:.2f} GiB" if count >= _GIB else f"{count / _MIB:.1f} MiB"


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.2f} %" if whole else "-"


def _losses(plain: dict[str, Any], ours: dict[str, Any]) -> tuple[str, str]:
    if plain["last_loss"] is None:
        return "not computed", "not computed"
    count = len(plain["losses"])
    different = sum(a != b for a, b in zip(plain["losses"], ours["losses"], strict=True))
    same = f"all {count} identical" if not different else f"{different} OF {count} DIFFER"
    return f"last {plain['last_loss']:.6f}", f"last {ours['last_loss']:.6f}, {same}"


def _device_rows(plain: dict[str, Any], ours: dict[str, Any]) -> list[tuple[str, str, str]]:
    def fragmentation(run: dict[str, Any]) -> str:
        return f"{100 * (run['peak_reserved_bytes'] / run['peak_live_bytes'] - 1):.1f} %"

    return [
        ("peak live", _bytes(plain["peak_live_bytes"]), _bytes(ours["peak_live_bytes"])),
        ("peak reserved", _bytes(plain["peak_reserved_bytes"]), _bytes(ours["peak_reserved_bytes"])),
        ("fragmentation", fragmentation(plain), fragmentation(ours)),
        ("allocation retries", str(plain["retries"]), str(ours["retries"])),
    ]


def _host_rows(plain: dict[str, Any], ours: dict[str, Any]) -> list[tuple[str, str, str]]:
    # Without Ebbtide, host tensors come from malloc: nothing is reserved, nobody counts live bytes.
    stats = ours["ebbtide"]
    return [
        ("peak memory of the process", _bytes(plain["peak_resident_bytes"]),
         _bytes(ours["peak_resident_bytes"])),
        ("peak live tensors", "not counted", _bytes(stats["peak_live_bytes"])),
        ("arena", "none", _bytes(stats["peak_arena_bytes"])),
        ("height of the plan", "none", _bytes(stats["plan_height_bytes"])),
    ]


def _print_table(title: str, plain: dict[str, Any], ours: dict[str, Any]) -> None:
    stats = ours["ebbtide"]
    rows = [("losses", *_losses(plain, ours))]
    rows += _device_rows(plain, ours) if "peak_reserved_bytes" in ours else _host_rows(plain, ours)
    rows += [
        ("step time (median)", f"{plain['step_ms']:.1f} ms", f"{ours['step_ms']:.1f} ms"),
        ("bytes served from the plan", "-",
         _percent(stats["planned_bytes"], stats["allocated_bytes"])),
        ("  since the first plan", "-",
         _percent(stats["settled_planned_bytes"], stats["settled_allocated_bytes"])),
    ]
    print(f"\n{title}\n{'':28}{'without Ebbtide':>22}   EBBTIDE=1")
    for name, left, right in rows:
        print(f"{name:28}{left:>22}   {right}")
    sys.stdout.flush()


def compare(title: str, arguments: list[str], simulated: bool = False) -> bool:
    """Whether the losses are the same."""
    plain = run(title, arguments, ebbtide=False, simulated=simulated)
    ours = run(title, arguments, ebbtide=True, simulated=simulated)
    _print_table(title, plain, ours)
    return bool(plain["losses"] == ours["losses"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=80, help="of the runs that compute")
    options = parser.parse_args()
    import torch

    wide = ["--size", "8b-width", "--device", "cuda", "--checkpointing", "--length", "65536"]
    if torch.cuda.is_available():
        name = torch.cuda.get_device_name()
        same = compare(f"8B width, 8 layers, on {name}", [*wide, "--steps", "20", "--every", "5"])
    else:
        small = ["--device", "cpu", "--steps", str(options.steps), "--every", "20"]
        same = compare("A small Llama on CPU tensors, real numbers", small)
        compare(
            "8B width, 8 layers, on a simulated H200 with 141 GB (memory exact, nothing computed)",
            [*wide, "--simulated", "--steps", "20", "--every", "5"],
            simulated=True,
        )
    if not same:
        raise SystemExit("ebbtide error the losses differ: please report this")


if __name__ == "__main__":
    main()
