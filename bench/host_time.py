"""Host time of one allocate + free pair through torch's CUDA allocator, on a simulated GPU.

Native, expandable segments and Ebbtide, the same loop (host_time.cpp), processes in turn: machines
are noisy, so what counts is the ratio within a turn. Printed are the medians over all turns.

    EBBTIDE_NATIVE_DIR=build/native python bench/host_time.py --turns 5 --json host_time.json
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "python_shim"))

from ebbtide import _dryrun, _native  # noqa: E402

LIVE_BLOCKS = (1, 40)


@dataclasses.dataclass(frozen=True)
class Case:
    name: str
    pattern: str
    expandable: bool
    mode: str  # EBBTIDE; empty: not loaded


CASES = (
    Case("native", "repeating", False, ""),
    Case("expandable", "repeating", True, ""),
    Case("ebbtide, on plan", "repeating", True, "1"),
    Case("ebbtide, on plan, not expandable", "repeating", False, "1"),
    Case("ebbtide, off plan", "unique", True, "1"),
    Case("ebbtide, another stream", "other-stream", True, "1"),
    Case("ebbtide, observing", "repeating", True, "observe"),
)


def torch_folder() -> pathlib.Path:
    """Where torch is installed, without importing it."""
    spec = importlib.util.find_spec("torch")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("host_time: torch is not installed")
    return pathlib.Path(spec.submodule_search_locations[0])


def build(folder: pathlib.Path) -> pathlib.Path:
    torch = torch_folder()
    packages = torch.parent
    includes = [torch / "include", *packages.glob("nvidia/cu*/include")]
    includes += [packages / "triton/backends/nvidia/include"]
    includes += [pathlib.Path("/usr/local/cuda/include")]
    names = ("torch_cuda", "torch_cpu", "c10_cuda", "c10")
    libraries = [torch / "lib" / f"lib{name}.so" for name in names]
    program = folder / "host_time"
    source = ROOT / "bench" / "host_time.cpp"
    command = ["g++", "-std=c++20", "-O2", str(source), "-o", str(program)]
    for include in includes:
        command += ["-isystem", str(include)]
    command += ["-Wl,--no-as-needed", *map(str, libraries), f"-Wl,-rpath,{torch / 'lib'}", "-ldl"]
    subprocess.run(command, check=True)
    return program


def seconds(
    program: pathlib.Path, case: Case, live: int, options: argparse.Namespace
) -> dict[str, float]:
    """The median of a process's repeats, for `upstream` and, with Ebbtide, `ours`."""
    command = [str(program), case.pattern, str(live), str(options.requests)]
    command += [str(options.patterns), str(options.repeats)]
    if case.mode:
        command.append(str(_native.folder().resolve() / _native.ADAPTORS["cuda"]))
    simulated = {} if options.real else _dryrun.environment(options.device)
    settings = {
        "PYTORCH_CUDA_ALLOC_CONF": f"expandable_segments:{case.expandable}",
        "EBBTIDE": case.mode or "0",
        "EBBTIDE_REPORT": "off",
    }
    environment = {**os.environ, **simulated, **settings}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    if done.returncode:
        raise SystemExit(f"host_time: {case.name}: {done.stderr[-2000:]}")
    found: dict[str, list[float]] = {}
    for line in done.stdout.splitlines():
        name, value = line.split()
        found.setdefault(name, []).append(float(value))
    return {name: statistics.median(values) for name, values in found.items()}


def measure(program: pathlib.Path, live: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    turns: list[dict[str, dict[str, float]]] = []
    for turn in range(options.turns):
        print(f"{live} live: turn {turn + 1} of {options.turns} ...", end="\r", flush=True)
        turns.append({case.name: seconds(program, case, live, options) for case in CASES})
    rows = []
    for case in CASES:
        whose = "ours" if case.mode else "upstream"
        own = [turn[case.name][whose] for turn in turns]
        ratios = [turn[case.name][whose] / turn["native"]["upstream"] for turn in turns]
        row = {
            "case": case.name,
            "live_blocks": live,
            "ns_per_pair": 1e9 * statistics.median(own),
            "ratio_to_native": statistics.median(ratios),
            "ratio_to_native_range": [min(ratios), max(ratios)],
        }
        if case.mode:  # upstream in the same process, taking turns with ours
            row["ratio_in_process"] = statistics.median(
                turn[case.name]["ours"] / turn[case.name]["upstream"] for turn in turns
            )
        rows.append(row)
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    print(
        f"{'live':>4}  {'allocator':<34} {'ns a pair':>9} {'x native':>9} {'range':>13} "
        f"{'x upstream':>11}"
    )
    for row in rows:
        low, high = row["ratio_to_native_range"]
        beside = f"{row['ratio_in_process']:.2f}" if "ratio_in_process" in row else "-"
        print(
            f"{row['live_blocks']:>4}  {row['case']:<34} {row['ns_per_pair']:>9.0f} "
            f"{row['ratio_to_native']:>9.2f} {f'{low:.2f}-{high:.2f}':>13} {beside:>11}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--turns", type=int, default=5, help="processes for each allocator")
    parser.add_argument("--repeats", type=int, default=5, help="measurements in a process")
    parser.add_argument("--patterns", type=int, default=20, help="iterations in a measurement")
    parser.add_argument("--requests", type=int, default=512, help="allocations in an iteration")
    parser.add_argument("--device", default="h200", help="the GPU to simulate")
    parser.add_argument("--real", action="store_true", help="the real GPU, not a simulated one")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write the results there")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="ebbtide-host-time-") as folder:
        program = build(pathlib.Path(folder))
        for live in LIVE_BLOCKS:
            rows += measure(program, live, options)
    show(rows)
    result = {"benchmark": "host_time", "requests": options.requests, "rows": rows}
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
