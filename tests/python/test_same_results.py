"""Training with Ebbtide gives the same bits as training without it, and is really served by it."""

from __future__ import annotations

import pathlib
import sys

import pytest
from conftest import PROGRAMS, our_lines
from dryrun_run import simulated_environment

torch = pytest.importorskip("torch", reason="torch is not installed here")
sys.path.insert(0, str(PROGRAMS))
# The cases are listed from their file: importing it would import ebbtide and draw random numbers.
CASES = [
    line.split("(")[0].removeprefix("def ")
    for line in (PROGRAMS / "train_cases.py").read_text().splitlines()
    if line.startswith("def ") and line.endswith("(program: Program) -> None:")
]
# cuBLAS is deterministic only with such a workspace.
DETERMINISTIC = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}


def train(run_python, native: pathlib.Path, case: str, out: pathlib.Path, device: str, ebbtide: str):
    done = run_python(
        [str(PROGRAMS / "train_cases.py"), case, str(out), "--device", device],
        EBBTIDE=ebbtide,
        EBBTIDE_DEVICES=device,
        EBBTIDE_REPORT="off",
        EBBTIDE_NATIVE_DIR=str(native),
        **DETERMINISTIC,
    )
    assert done.returncode == 0, done.stderr
    assert our_lines(done.stderr) == []
    return torch.load(out)


def assert_same_and_served(run_python, native, tmp_path, case: str, device: str) -> dict:
    plain = train(run_python, native, case, tmp_path / "plain.pt", device, "0")
    ours = train(run_python, native, case, tmp_path / "ours.pt", device, "1")
    assert plain["stats"] is None
    assert plain["tensors"].keys() == ours["tensors"].keys()
    assert sum(name.startswith("parameter") for name in plain["tensors"]) > 10
    assert sum(name.startswith("loss") for name in plain["tensors"]) >= 20
    different = [
        name
        for name, value in plain["tensors"].items()
        if not torch.equal(value, ours["tensors"][name])
    ]
    assert different == []
    stats = ours["stats"]
    assert stats["plans"] > 0, stats
    assert stats["planned_bytes"] > 0, stats
    return stats


def test_every_case_is_found():
    assert len(CASES) == 12


@pytest.mark.parametrize("case", CASES)
def test_training_on_cpu_tensors_is_bit_identical(run_python, native, tmp_path, case):
    assert_same_and_served(run_python, native, tmp_path, case, "cpu")


@pytest.mark.gpu
@pytest.mark.parametrize("case", CASES)
def test_training_on_a_gpu_is_bit_identical(run_python, native, tmp_path, case):
    assert_same_and_served(run_python, native, tmp_path, case, "cuda")


@pytest.mark.parametrize("case", ["gradient_accumulation", "no_optimizer"])
def test_what_a_gpu_trains_is_large_enough_to_be_planned(run_python, native, tmp_path, case):
    # The simulated one computes no bits to compare; these two cases have the least to plan, and no marks.
    done = run_python(
        [str(PROGRAMS / "train_cases.py"), case, str(tmp_path / "out.pt"), "--device", "cuda"],
        **simulated_environment(tmp_path),
        EBBTIDE="1", EBBTIDE_REPORT="off", EBBTIDE_NATIVE_DIR=str(native), **DETERMINISTIC,
    )
    assert done.returncode == 0, done.stderr
    assert torch.load(tmp_path / "out.pt")["stats"]["planned_bytes"] > 0


@pytest.mark.parametrize("case", ["fixed_length", "varying_length"])
def test_after_warm_up_nearly_all_bytes_are_planned(run_python, native, tmp_path, case):
    # Not all of them: in so small a model every twentieth byte is in tensors too small to be planned.
    stats = assert_same_and_served(run_python, native, tmp_path, case, "cpu")
    assert stats["settled_planned_bytes"] >= 0.9 * stats["settled_allocated_bytes"], stats


def test_observing_changes_nothing_and_serves_nothing(run_python, native, tmp_path):
    plain = train(run_python, native, "fixed_length", tmp_path / "plain.pt", "cpu", "0")
    ours = train(run_python, native, "fixed_length", tmp_path / "ours.pt", "cpu", "observe")
    for name, value in plain["tensors"].items():
        assert torch.equal(value, ours["tensors"][name]), name
    assert ours["stats"]["allocations"] > 100
    assert ours["stats"]["planned_bytes"] == 0 and ours["stats"]["arena_bytes"] == 0
