"""Host time of one allocate + free pair on a simulated GPU: torch's own allocator and Ebbtide, round by round in turn.

Machines are noisy, so both take turns in one process (host_time.cpp) and what counts is the ratio of their median
rounds. Off-plan rounds that never repeat are tried again now and then; "in all" has those in it, too. "least" is the
ratio of an allocator that does nothing, in the same rounds: torch's dispatcher alone.

    EBBTIDE_NATIVE_DIR=build/native python bench/host_time.py --json host_time.json
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


@dataclasses.dataclass(frozen=True)
class Case:
    name: str
    pattern: str
    limit: float  # of the ratio to torch's own allocator
    mode: str = "1"  # EBBTIDE
    expandable: bool = True  # segments, for both


CASES = (
    Case("on plan", "repeating", 0.8),
    Case("on plan, segments not expandable", "repeating", 0.8, expandable=False),
    Case("off plan: rounds that never repeat", "unique", 1.15),
    Case("off plan: another stream", "other-stream", 1.15),
    Case("off plan: before the first mark", "no-marks", 1.15),
    Case("observing", "repeating", 1.5, mode="observe"),
)
# entry, threads, live blocks
LOADS = (
    ("allocator", 1, 1),
    ("allocator", 1, 40),
    ("allocator", 4, 40),
    ("empty", 1, 40),
    ("empty", 4, 40),
    ("python", 1, 40),  # torch.empty; of the cases whose rounds repeat on the planned stream
)


def torch_folder() -> pathlib.Path:
    """Where torch is installed, without importing it."""
    spec = importlib.util.find_spec("torch")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("host_time: torch is not installed")
    return pathlib.Path(spec.submodule_search_locations[0])


def build(folder: pathlib.Path) -> pathlib.Path:
    """The program, which can also be loaded as a library."""
    torch = torch_folder()
    packages = torch.parent
    includes = [torch / "include", *packages.glob("nvidia/cu*/include")]
    includes += [packages / "triton/backends/nvidia/include"]
    includes += [pathlib.Path("/usr/local/cuda/include")]
    names = ("torch_cuda", "torch_cpu", "c10_cuda", "c10")
    libraries = [torch / "lib" / f"lib{name}.so" for name in names]
    libraries += packages.glob("nvidia/cu*/lib/libcudart.so.[0-9]*")
    program = folder / "host_time"
    source = ROOT / "bench" / "host_time.cpp"
    command = ["g++", "-std=c++20", "-O2", "-fPIC", str(source), str(ROOT / "hooks" / "torch_cuda_forwarder.cpp")]
    command += ["-o", str(program), "-I", str(ROOT)]
    for include in includes:
        command += ["-isystem", str(include)]
    command += ["-Wl,--no-as-needed", *map(str, libraries), f"-Wl,-rpath,{torch / 'lib'}", "-ldl"]
    for form in ([], ["-shared", "-o", str(program.with_suffix(".so"))]):
        subprocess.run([*command, *form], check=True)
    return program


def rounds_of(
    program: pathlib.Path, case: Case, load: tuple[str, int, int], options: argparse.Namespace
) -> list[tuple[float, float, float]]:
    """Seconds of every round: torch's, Ebbtide's, and those of an allocator that does nothing."""
    entry, threads, live = load
    adaptor = str(_native.folder().resolve() / _native.ADAPTORS["cuda"])
    counts = [str(live), str(options.requests), str(options.rounds)]
    if entry == "python":
        script = str(ROOT / "bench" / "host_time_python.py")
        has_marks = str(int(case.pattern != "no-marks"))
        command = [sys.executable, script, str(program.with_suffix(".so")), adaptor, *counts, has_marks]
    else:
        command = [str(program), case.pattern, entry, str(threads), *counts, adaptor]
    devices = load[1] if case.pattern == "repeating" else 1
    simulated = {} if options.real else _dryrun.environment(options.device, count=devices)
    settings = {
        # The simulated GPU looks at every operator, at::empty among them; a real one does not.
        "EBBTIDE_DRYRUN_BARE": "1",
        "PYTORCH_CUDA_ALLOC_CONF": f"expandable_segments:{case.expandable}",
        "EBBTIDE": case.mode,
        "EBBTIDE_REPORT": "off",
        "TORCH_DEVICE_BACKEND_AUTOLOAD": "0",  # what Python installs is installed here
    }
    environment = {**os.environ, **simulated, **settings}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    if done.returncode:
        raise SystemExit(f"host_time: {case.name}: {done.stderr[-2000:]}")
    rounds = [line.split() for line in done.stdout.splitlines()]
    return [(float(theirs), float(ours), float(least)) for theirs, ours, least in rounds]


def row_of(
    program: pathlib.Path, case: Case, load: tuple[str, int, int], options: argparse.Namespace
) -> dict[str, Any]:
    rounds = [
        times for _ in range(options.turns) for times in rounds_of(program, case, load, options)
    ]
    theirs, ours, least = (statistics.median(column) for column in zip(*rounds, strict=True))
    entry, threads, live = load
    per_pair = 1e9 / options.requests
    return {
        "case": case.name,
        "entry": entry,
        "threads": threads,
        "live_blocks": live,
        "ns_per_pair": ours * per_pair,
        "ns_per_pair_of_torch": theirs * per_pair,
        "ratio": ours / theirs,
        "ratio_in_all": sum(times[1] for times in rounds) / sum(times[0] for times in rounds),
        "least_ratio": least / theirs,
        "limit": case.limit,
    }


def show(row: dict[str, Any]) -> None:
    verdict = "" if row["ratio"] <= row["limit"] else "   above"
    print(
        f"{row['case']:<36} {row['entry']:<10} {row['threads']:>7} {row['live_blocks']:>4} "
        f"{row['ns_per_pair_of_torch']:>7.0f} {row['ns_per_pair']:>7.0f} {row['ratio']:>6.2f} "
        f"{row['ratio_in_all']:>7.2f} {row['least_ratio']:>6.2f} {row['limit']:>6.2f}{verdict}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--turns", type=int, default=1, help="processes for each row")
    parser.add_argument("--rounds", type=int, default=200, help="rounds measured in a process")
    parser.add_argument("--requests", type=int, default=512, help="allocations in a round")
    parser.add_argument("--rows", metavar="WORD", default="", help="only cases with this in their name")
    parser.add_argument("--device", default="h200", help="the GPU to simulate")
    parser.add_argument("--real", action="store_true", help="the real GPU, not a simulated one")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write the results there")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    print(
        f"{'case':<36} {'entry':<10} {'threads':>7} {'live':>4} {'torch':>7} {'ns/pair':>7} "
        f"{'ratio':>6} {'in all':>7} {'least':>6} {'limit':>6}"
    )
    with tempfile.TemporaryDirectory(prefix="ebbtide-host-time-") as folder:
        program = build(pathlib.Path(folder))
        for case in CASES:
            for load in LOADS if options.rows in case.name else ():
                if load[0] == "python" and case.pattern not in ("repeating", "no-marks"):
                    continue
                rows.append(row_of(program, case, load, options))
                show(rows[-1])
    result = {"benchmark": "host_time", "requests": options.requests, "rows": rows}
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
