"""Traces of programs that do not end as they should, and of two programs at once."""

from __future__ import annotations

import subprocess
import sys

import pytest
from conftest import ROOT, TIMEOUT_S

pytest.importorskip("numpy")
sys.path.insert(0, str(ROOT / "python_shim"))

from ebbtide._reports import _figures, _reading  # noqa: E402

# Writes more than the limit, one event after the other, until the trace has ended or the bound is reached.
FULL = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, LIMIT))
import torch
kept = torch.ones(1 << 20)
for _ in range(20000):
    torch.ones(20000)
print("trained")
"""
KILLED = """
import os, pathlib, signal, sys, time, torch
trace = pathlib.Path(os.environ["EBBTIDE_TRACE"])
kept = torch.ones(1 << 20)
while trace.stat().st_size < 10000:
    torch.ones(20000)
print("ready", flush=True)
sys.stdin.read()
"""
OTHER = "import torch; torch.ones(20000)"


@pytest.fixture
def variables(native, tmp_path, monkeypatch):
    monkeypatch.setenv("EBBTIDE_NATIVE_DIR", str(native))
    return {
        "EBBTIDE": "observe", "EBBTIDE_DEVICES": "cpu", "EBBTIDE_REPORT": "off", "EBBTIDE_NATIVE_DIR": str(native),
        "EBBTIDE_TRACE": str(tmp_path / "run.ebb"), "EBBTIDE_TRACE_STACKS": "python", "OMP_NUM_THREADS": "1",
    }  # fmt: skip


def is_told(path) -> None:
    """Up to the cut, with the block that lives to the end."""
    recording = _reading.read(str(path))
    assert recording.damage and recording.events > 100
    (device,) = recording.devices
    assert int(_figures.live_curve(device).max()) >= 4 << 20


def test_a_full_disk_ends_the_trace_and_not_the_training(run_python, variables, tmp_path):
    limit = 400_000  # more than one block
    done = run_python(f"LIMIT = {limit}\n{FULL}", **variables)
    assert done.returncode == 0 and done.stdout == "trained\n", done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "trace" in line]
    assert line == (
        f"ebbtide warning EBBTIDE_TRACE ends early: cannot write trace {tmp_path / 'run.ebb'}: File too large; "
        "going on without a trace"
    )
    assert (tmp_path / "run.ebb").stat().st_size <= limit
    is_told(tmp_path / "run.ebb")


def test_a_killed_program_leaves_its_trace_and_a_second_one_leaves_it_alone(run_python, python_environment, variables, tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED], env=python_environment | variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        text=True, cwd=ROOT,
    )  # fmt: skip
    try:
        assert process.stdout.readline() == "ready\n"
        second = run_python(OTHER, **variables)
    finally:
        process.kill()
        process.communicate(timeout=TIMEOUT_S)
    assert second.returncode == 0
    (line,) = [line for line in second.stderr.splitlines() if "trace" in line]
    assert "is being written by another process; give each its own file; going on without a trace" in line
    is_told(tmp_path / "run.ebb")
