"""Traces of programs that do not end as they should, and of two programs at once. The programs talk to the library alone."""

from __future__ import annotations

import subprocess
import sys

import pytest
from conftest import ROOT, TIMEOUT_S

pytest.importorskip("numpy")
sys.path.insert(0, str(ROOT / "python_shim"))

from ebbtide._reports import _reading  # noqa: E402

BEGIN = """
import ctypes, os, pathlib, resource, sys
if LIMIT:
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, LIMIT))
ebbtide = ctypes.CDLL(os.path.join(os.environ["EBBTIDE_NATIVE_DIR"], "libebbtide.so"))
trace = pathlib.Path(os.environ["EBBTIDE_TRACE"])
def write(events):
    for i in range(events):
        ebbtide.ebbtide_set_owner(1 + i % 2)
assert ebbtide.ebbtide_check_settings() == 0
"""
# More than the limit holds; the writer may be given all of it at once.
FULL = BEGIN + """
write(30000)
ebbtide.ebbtide_finish()
print("trained")
"""
KILLED = BEGIN + """
while trace.stat().st_size < 10000:
    write(100)
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def variables(native, tmp_path, monkeypatch):
    monkeypatch.setenv("EBBTIDE_NATIVE_DIR", str(native))
    return {
        "EBBTIDE": "observe", "EBBTIDE_REPORT": "off", "EBBTIDE_NATIVE_DIR": str(native),
        "EBBTIDE_TRACE": str(tmp_path / "run.ebb"),
    }  # fmt: skip


def is_told_up_to_the_cut(path) -> None:
    recording = _reading.read(str(path))
    assert recording.damage and recording.events > 100


def test_a_full_disk_ends_the_trace_and_not_the_program(run_python, variables, tmp_path):
    limit = 400_000  # more than one block
    done = run_python(f"LIMIT = {limit}\n{FULL}", **variables)
    assert done.returncode == 0 and done.stdout == "trained\n", done.stderr
    assert done.stderr.splitlines() == [
        f"ebbtide warning EBBTIDE_TRACE ends early: cannot write trace {tmp_path / 'run.ebb'}: File too large; "
        "going on without a trace"
    ]
    assert (tmp_path / "run.ebb").stat().st_size <= limit
    is_told_up_to_the_cut(tmp_path / "run.ebb")


def test_a_killed_program_leaves_its_trace_and_a_second_one_leaves_it_alone(run_python, python_environment, variables, tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", f"LIMIT = 0\n{KILLED}"], env=python_environment | variables, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip
    try:
        assert process.stdout.readline() == "ready\n"
        second = run_python(f"LIMIT = 0\n{FULL}", **variables)
    finally:
        process.kill()
        process.communicate(timeout=TIMEOUT_S)
    assert second.returncode == 0 and second.stdout == "trained\n"
    (line,) = second.stderr.splitlines()
    assert "is being written by another process; give each its own file; going on without a trace" in line
    is_told_up_to_the_cut(tmp_path / "run.ebb")
