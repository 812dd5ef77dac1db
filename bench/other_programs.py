"""Device bytes held over peak live bytes for programs that are no plain language models.

Each file of programs/ is what a user would write, with nothing of Ebbtide in it. It runs on a
simulated GPU under torch's own two allocators and under Ebbtide; peak live is the most that torch had
allocated under the native allocator.

    python bench/other_programs.py                               all of them
    python bench/other_programs.py --programs t5,unet --seed 7   two, with other sizes
    python bench/other_programs.py --room 1.06                   on devices with 1.06 times what is alive
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

import launch

FOLDER = pathlib.Path(__file__).with_name("programs")
PROGRAMS = sorted(file.stem for file in FOLDER.glob("*.py") if file.stem != "common")


def run(
    program: str, allocator: str, options: argparse.Namespace, capacity: int | None = None
) -> dict[str, Any]:
    """The dry run's report; `error` is set when there is none."""
    environment = {k: v for k, v in os.environ.items() if k not in launch.OURS}
    environment |= {"EBBTIDE_REPORT": "off", "EBBTIDE_OOM": "off", **launch.ALLOCATORS[allocator]}
    with tempfile.TemporaryDirectory() as folder:
        report = pathlib.Path(folder) / "report.json"
        command = [sys.executable, "-m", "ebbtide", "dryrun", "--device", options.device]
        command += ["--capacity", f"{capacity}B"] if capacity else []
        command += ["--json", str(report), "--", sys.executable, str(FOLDER / f"{program}.py")]
        command += ["--seed", str(options.seed)]
        if options.steps:
            command += ["--steps", str(options.steps)]
        try:
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, timeout=options.timeout
            )
        except subprocess.TimeoutExpired:
            return {"error": f"no result after {options.timeout:.0f} s"}
        if done.returncode or not report.exists():
            if "OutOfMemoryError" in done.stderr:
                return {"error": "out of memory"}
            said = [line for line in done.stderr.splitlines() if line.strip()] or ["nothing said"]
            return {"error": f"exit {done.returncode}: {said[-1].strip()}"}
        told = json.loads(report.read_text())
    return {
        "held_bytes": told["devices"][0]["peak_bytes"],
        "peak_live_bytes": told["torch"][0]["peak_allocated_bytes"],
        "retries": told["torch"][0]["retries"],
    }


def measure(program: str, options: argparse.Namespace) -> dict[str, Any]:
    results = {}
    capacity = None
    for allocator in launch.ALLOCATORS:
        print(f"{program}: {allocator} ...", end=" " * 20 + "\r", file=sys.stderr, flush=True)
        results[allocator] = run(program, allocator, options, capacity)
        if options.room and allocator == "native":
            capacity = int(options.room * results[allocator].get("peak_live_bytes", 0))
    return {"program": program, "seed": options.seed, "room": options.room, "results": results}


def _print_row(entry: dict[str, Any]) -> None:
    results = entry["results"]
    peak_live = results["native"].get("peak_live_bytes", 0)
    cells = [f"{entry['program']:12}{peak_live / (1 << 30):10.2f}"]
    for result in results.values():
        if "error" in result or not peak_live:
            cells.append(f"{result.get('error', '-'):>15}")
        else:
            retries = f" ({result['retries']})" if result["retries"] else ""
            cells.append(f"{result['held_bytes'] / peak_live:.3f}{retries}".rjust(15))
    print("".join(cells), flush=True)


def _programs(text: str) -> list[str]:
    chosen = text.split(",")
    for name in chosen:
        if name not in PROGRAMS:
            raise argparse.ArgumentTypeError(f"no program {name!r}: there are {', '.join(PROGRAMS)}")
    return chosen


def _room(text: str) -> float:
    room = float(text)
    if not room >= 1:
        raise argparse.ArgumentTypeError(f"{text}: less than what is alive, no program runs with that")
    return room


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--programs", type=_programs, default=PROGRAMS, metavar="A,B",
                        help=f"some of {', '.join(PROGRAMS)}")
    parser.add_argument("--seed", type=int, default=1, help="what draws the sizes")
    parser.add_argument("--steps", type=int, help="steps, or epochs; default: the program's own")
    parser.add_argument("--device", default="h200", help="the GPU to simulate")
    parser.add_argument("--room", type=_room, metavar="X",
                        help="give the device X times what is alive at most, but for native, which tells what that is")
    parser.add_argument("--timeout", type=float, default=300, help="seconds for one run")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write the results there")
    options = parser.parse_args()
    names = "".join(f"{name:>15}" for name in launch.ALLOCATORS)
    print(f"{'held / live':12}{'live GiB':>10}{names}   (retries)")
    measured = []
    for program in options.programs:
        measured.append(measure(program, options))
        _print_row(measured[-1])
        if options.json:
            options.json.write_text(json.dumps(measured, indent=1) + "\n")


if __name__ == "__main__":
    main()
