"""What the benchmarks start and write: processes that end with their children, JSON without numbers that are none."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import time

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "bench"))

import child_process  # noqa: E402
import json_file  # noqa: E402

STARTS_ANOTHER = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(child.pid, file=sys.stderr, flush=True)
child.wait()
"""


def is_running(number: int) -> bool:
    try:
        return "\nState:\tZ" not in pathlib.Path(f"/proc/{number}/status").read_text()
    except FileNotFoundError:
        return False


def test_what_takes_too_long_ends_with_all_that_it_started():
    with pytest.raises(subprocess.TimeoutExpired) as late:
        child_process.run([sys.executable, "-c", STARTS_ANOTHER], timeout=3)
    number = int(late.value.stderr)
    end = time.monotonic() + 10
    while is_running(number) and time.monotonic() < end:
        time.sleep(0.05)
    assert not is_running(number)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("", "nothing was said"),
        ("ebbtide dryrun: --device h300: unknown device", "ebbtide dryrun: --device h300: unknown device"),
        ("a\n\nb\nebbtide dryrun: a summary\n", "b"),
        ("torch.AcceleratorError: CUDA error: x\nFor debugging consider\nCompile with `TORCH_USE_CUDA_DSA`\n\n", "torch.AcceleratorError: CUDA error: x"),
        ("ValueError: first\n\nDuring handling:\n\nKeyboardInterrupt\n", "KeyboardInterrupt"),
    ],
)  # fmt: skip
def test_the_reason_is_the_last_exception_else_the_last_line(said, reason):
    assert child_process.reason(said) == reason


def test_what_is_not_finite_is_null(tmp_path):
    value = {"losses": [1.5, float("nan"), float("inf")], "shape": (1, 2), "on": True}
    path = tmp_path / "out.json"
    json_file.write(path, value)
    assert json.loads(path.read_text(), parse_constant=pytest.fail) == {
        "losses": [1.5, None, None], "shape": [1, 2], "on": True
    }  # fmt: skip
    assert os.listdir(tmp_path) == ["out.json"]
