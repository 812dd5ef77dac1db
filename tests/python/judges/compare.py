"""Runs test files of a PyTorch checkout over torch's own allocator and over Ebbtide, and lists what passes with the
first and not with the second. That list must be empty.

    python tests/python/judges/compare.py PYTORCH/test --files test_cuda.py test_cuda_multigpu.py -k "memory or oom"

The tests run on simulated GPUs, in the torch that is installed; the checkout should be of the same version. What the
simulated GPU does not carry fails with both and is no difference. Needs pytest, and what PyTorch's tests need
(expecttest, hypothesis, psutil). `off plan` is Ebbtide with nothing that says where an iteration begins; `on plan` runs each test
five times as iterations of one program, so that the arena serves what it can.

A test that ends its process (or takes longer than --timeout) counts as failed, and the rest go on in a new process. What
differs runs once more, alone, with both; only what differs again is listed. Exit status: 0 nothing differs, 1 something does, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[2]
sys.path.insert(0, str(ROOT / "python_shim"))

from ebbtide import _dryrun  # noqa: E402


@dataclasses.dataclass(frozen=True)
class Allocator:
    name: str
    ebbtide: str  # EBBTIDE
    rounds: int


ALLOCATORS = (
    Allocator("native", "0", 1),  # first: what fails here is not run with the others
    Allocator("native, repeated", "0", 5),
    Allocator("off plan", "1", 1),
    Allocator("on plan", "1", 5),
)
# Each of Ebbtide's beside the native run that does the same.
PAIRS = (("native", "off plan"), ("native, repeated", "on plan"))


@dataclasses.dataclass
class Outcome:
    outcome: str
    why: str = ""
    served: int = 0  # requests that the arena served in the last round


class Runner:
    """Runs a file's tests under an allocator, in as many processes as it takes."""

    def __init__(self, options: argparse.Namespace, scratch: pathlib.Path) -> None:
        self.options = options
        self.scratch = scratch
        self.log = scratch / "log.jsonl"
        self.done = scratch / "done.txt"

    def environment(self, allocator: Allocator) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("EBBTIDE", "PYTORCH_", "JUDGE_"))}
        kept["EBBTIDE_NATIVE_DIR"] = str(self.options.native.resolve())
        os.environ["EBBTIDE_NATIVE_DIR"] = kept["EBBTIDE_NATIVE_DIR"]  # where the simulated GPU is looked for
        simulated = _dryrun.environment(self.options.device, self.options.capacity, None, self.options.count)
        paths = [str(HERE), str(ROOT / "python_shim"), str(self.scratch / "package"), kept.get("PYTHONPATH", "")]
        settings = {
            "EBBTIDE": allocator.ebbtide, "EBBTIDE_REPORT": "off", "EBBTIDE_OOM": "off",
            "JUDGE_LOG": str(self.log), "JUDGE_DONE": str(self.done), "JUDGE_ROUNDS": str(allocator.rounds),
            "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        }  # fmt: skip
        return kept | simulated | settings | dict(pair.split("=", 1) for pair in self.options.set)

    def run(
        self, file: str, allocator: Allocator, only: list[str] | None = None, leave_out: frozenset[str] = frozenset()
    ) -> dict[str, Outcome]:
        outcomes: dict[str, Outcome] = {}
        while True:
            self.log.write_text("")
            self.done.write_text("\n".join([*outcomes, *leave_out]))
            before = len(outcomes)
            status = self._process(file, allocator, only)
            running = self._read(outcomes)
            if running is not None:
                outcomes[running] = Outcome("failed", f"the process ended with status {status}" if status is not None else "took too long")
            if len(outcomes) == before:
                return outcomes

    def _process(self, file: str, allocator: Allocator, only: list[str] | None) -> int | None:
        """Its exit status; None: nothing ended for --timeout seconds."""
        command = [sys.executable, "-m", "pytest", "-q", "-p", "recording", "-p", "no:cacheprovider", "--no-header"]
        command += only or [file]
        if self.options.k:
            command += ["-k", self.options.k]
        with open(self.scratch / "output.txt", "w") as output:
            process = subprocess.Popen(
                command, cwd=self.options.tests, env=self.environment(allocator), stdout=output, stderr=output, start_new_session=True
            )
            try:
                is_over = self._wait(process, self.options.timeout * allocator.rounds)
            finally:
                if process.poll() is None:  # too long, or we are interrupted
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
        if not is_over:
            return None
        size = self.log.stat().st_size
        if process.returncode not in (0, 1, 5) and not size:
            raise SystemExit(f"compare: pytest could not run {file}:\n{(self.scratch / 'output.txt').read_text()[-3000:]}")
        return process.returncode

    def _wait(self, process: subprocess.Popen[bytes], patience_s: float) -> bool:
        """False: for so long no test began or ended."""
        size, since = 0, time.monotonic()
        while process.poll() is None:
            time.sleep(0.2)
            if self.log.stat().st_size != size:
                size, since = self.log.stat().st_size, time.monotonic()
            if time.monotonic() - since > patience_s:
                return False
        return True

    def _read(self, outcomes: dict[str, Outcome]) -> str | None:
        """Adds what ended, and returns the test that began and did not end."""
        running = None
        for line in map(json.loads, self.log.read_text().splitlines()):
            running = line.get("begins", running)
            if "ended" in line:
                running = None
                outcomes[line["ended"]] = Outcome(line["outcome"], line["why"], line["served"])
        return running


def passed(outcomes: dict[str, Outcome]) -> set[str]:
    return {test for test, outcome in outcomes.items() if outcome.outcome == "passed"}


def differences(runner: Runner, file: str, results: dict[str, dict[str, Outcome]]) -> dict[str, dict[str, str]]:
    """What passes with native and not with Ebbtide, twice; why not."""
    found: dict[str, dict[str, str]] = {}
    by_name = {allocator.name: allocator for allocator in ALLOCATORS}
    for native, ours in PAIRS:
        found[ours] = {}
        for test in sorted(passed(results[native]) - passed(results[ours])):
            again = [runner.run(file, by_name[name], [test]) for name in (native, ours)]
            if test in passed(again[0]) - passed(again[1]):
                found[ours][test] = again[1][test].why
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tests", type=pathlib.Path, help="the folder `test` of a PyTorch checkout")
    parser.add_argument("--files", nargs="+", default=["test_cuda.py"], metavar="FILE", help="files in it (default: test_cuda.py)")
    parser.add_argument("-k", metavar="EXPRESSION", help="pytest's: only tests whose names match")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="an environment variable for all runs")
    parser.add_argument("--device", default=_dryrun.DEFAULT_DEVICE, help="the GPU to simulate")
    parser.add_argument("--capacity", help="its memory, for example 16GiB (default: the device's own)")
    parser.add_argument("--count", type=int, default=2, help="how many of them (default: 2)")
    parser.add_argument("--timeout", type=float, default=60, metavar="SECONDS", help="for one run of a test (default: 60)")
    parser.add_argument("--native", type=pathlib.Path, default=ROOT / "build" / "native", help="the built libraries (default: build/native)")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write every outcome there")
    options = parser.parse_args()
    for file in options.files:
        if not (options.tests / file).exists():
            parser.error(f"{options.tests / file} does not exist: give the folder `test` of a PyTorch checkout, and files in it")
    everything: dict[str, dict[str, dict[str, Outcome]]] = {}
    differing = 0
    with tempfile.TemporaryDirectory(prefix="ebbtide-judge-") as folder:
        runner = Runner(options, pathlib.Path(folder))
        link = [sys.executable, str(ROOT / "scripts/lib/link_package.py"), "--metadata", str(runner.scratch / "package")]
        subprocess.run(link, check=True)
        for file in options.files:
            results = everything[file] = {}
            for allocator in ALLOCATORS:
                begin = time.monotonic()
                hopeless = frozenset(results.get("native", {})) - passed(results.get("native", {}))
                outcomes = results[allocator.name] = runner.run(file, allocator, leave_out=hopeless)
                served = sum(outcome.served > 0 for outcome in outcomes.values())
                print(f"{file:<36} {allocator.name:<17} {len(passed(outcomes)):>5} of {len(outcomes)} passed, the arena served {served} of them, "
                      f"{time.monotonic() - begin:.0f} s", flush=True)
            for ours, tests in differences(runner, file, results).items():
                differing += len(tests)
                print(f"{file}: passes with native and not {ours}: {len(tests)}")
                for test, why in tests.items():
                    print(f"  {test}\n" + "\n".join("      " + line for line in why.splitlines()[-12:]))
    if options.json:
        options.json.write_text(json.dumps(everything, default=dataclasses.asdict, indent=1) + "\n")
    raise SystemExit(1 if differing else 0)


if __name__ == "__main__":
    main()
