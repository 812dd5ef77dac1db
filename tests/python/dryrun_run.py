"""Runs a program on simulated devices, for the tests of dryrun/."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import textwrap
from typing import Any

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
TIMEOUT_S = 120

# What the programs of the tests begin with.
PRELUDE = """
import ctypes, json, sys
import torch

device = ctypes.CDLL(None)
for name in ("used", "peak", "capacity", "counter"):
    getattr(device, f"ebbtide_dryrun_{name}").restype = ctypes.c_int64

def used(index=0):
    return device.ebbtide_dryrun_used(index)

def counter(name):
    value = device.ebbtide_dryrun_counter(name.encode())
    assert value >= 0, name
    return value

def reads():
    return counter("uncomputed_reads")

MIB = 1 << 20
"""

# For programs: what `work` returns, and the sizes that it asked the allocator for.
ASKED_FOR = """
def asked_for(work):
    torch.cuda.memory._record_memory_history(max_entries=1000)
    result = work()
    entries = torch.cuda.memory._snapshot()["device_traces"][0]
    torch.cuda.memory._record_memory_history(enabled=None)
    return result, [entry["size"] for entry in entries if entry["action"] == "alloc"]
"""


SECONDS = """
def seconds(work, times=10):
    work()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(times):
        work()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / 1000 / times
"""


@dataclasses.dataclass
class Simulated:
    stdout: str
    stderr: str
    status: int
    report: dict[str, Any] | None

    def answer(self) -> Any:
        """The JSON that the program printed last."""
        assert self.status == 0, self.stderr
        return json.loads(self.stdout.strip().splitlines()[-1])


def dryrun_module() -> Any:
    sys.path.insert(0, str(ROOT / "python_shim"))
    try:
        from ebbtide import _dryrun
    finally:
        sys.path.pop(0)
    return _dryrun


def simulated_environment(
    tmp_path: pathlib.Path, device: str = "h200", capacity: str | None = None, count: int = 1
) -> dict[str, str]:
    """The variables of a dry run that writes `report.json`. Skips the test where the stand-ins are
    not built, but fails it where EBBTIDE_NATIVE_DIR promises them."""
    dryrun = dryrun_module()
    try:
        dryrun.check_torch()
    except dryrun.DryrunError as error:
        pytest.skip(str(error))
    try:
        return dryrun.environment(device, capacity, tmp_path / "report.json", count)
    except dryrun.DryrunError as error:
        if "EBBTIDE_NATIVE_DIR" in os.environ:
            pytest.fail(str(error))
        pytest.skip(str(error))


def simulate(
    code: str,
    tmp_path: pathlib.Path,
    device: str = "h200",
    capacity: str | None = None,
    count: int = 1,
    **variables: str,
) -> Simulated:
    """Runs PRELUDE and `code`; see simulated_environment."""
    report = tmp_path / "report.json"
    chosen = simulated_environment(tmp_path, device, capacity, count)
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("EBBTIDE", "PYTORCH_"))
    }
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + textwrap.dedent(code)],
        env=kept | chosen | {"TORCH_DEVICE_BACKEND_AUTOLOAD": "0", "EBBTIDE_OOM": "off"} | variables,
        check=False,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    written = dryrun_module().read_report(report) or None
    return Simulated(done.stdout, done.stderr, done.returncode, written)
