"""The C++ example under Ebbtide: linked and preloaded, with right and wrong settings."""

from __future__ import annotations

import json
import pathlib
import subprocess

import pytest
from conftest import our_lines
from libtorch_example import Example, attempt, call, example

TEXT = pathlib.Path(__file__).with_name("conftest.py")
STEPS = 30
CPU = {"EBBTIDE_DEVICES": "cpu", "CUDA_VISIBLE_DEVICES": ""}


@pytest.fixture(scope="module")
def built(native: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> Example:
    return example(native, tmp_path_factory)


@pytest.fixture(scope="module")
def native_losses(built: Example) -> list[str]:
    return losses(call([built.linked, TEXT, STEPS], **CPU))


def losses(done: subprocess.CompletedProcess[str], steps: int = STEPS) -> list[str]:
    lines = [line for line in done.stdout.splitlines() if line.startswith("step ")]
    assert len(lines) == steps
    return lines


def served(report: pathlib.Path) -> float:
    """The share of bytes that the plan served after warm-up."""
    (device,) = json.loads(report.read_text())["devices"]
    assert device["device"] == -1 and device["settled_allocated_bytes"] > 0
    return float(device["settled_planned_bytes"] / device["settled_allocated_bytes"])


def test_without_ebbtide_the_linked_program_prints_no_report(built: Example) -> None:
    done = call([built.linked, TEXT, 2], **CPU)
    assert "ebbtide" not in done.stdout + done.stderr


def test_linked_program_trains_identically_from_the_plan(
    built: Example, native_losses: list[str], tmp_path: pathlib.Path
) -> None:
    report = tmp_path / "report.json"
    done = call([built.linked, TEXT, STEPS], EBBTIDE="1", EBBTIDE_REPORT=str(report), **CPU)
    assert losses(done) == native_losses
    assert served(report) >= 0.95
    assert "served by the plan" in done.stdout  # ebbtide::report()


def test_observing_changes_nothing_and_reports(built: Example, native_losses: list[str]) -> None:
    done = call([built.linked, TEXT, 5], EBBTIDE="observe", **CPU)
    assert losses(done, 5) == native_losses[:5]
    assert "only observing" in done.stderr


def test_preloaded_adaptor_serves_a_program_that_does_not_link_it(
    built: Example, native_losses: list[str], tmp_path: pathlib.Path
) -> None:
    report = tmp_path / "report.json"
    adaptor = built.library("libebbtide_torch_cpu.so")
    done = call(
        [built.plain, TEXT, STEPS],
        LD_PRELOAD=str(adaptor),
        EBBTIDE="1",
        EBBTIDE_REPORT=str(report),
        **CPU,
    )
    assert losses(done) == native_losses
    assert served(report) >= 0.95


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [("EBBTIDE", "maybe", "observe"), ("EBBTIDE_DEVICES", "tpu", "cpu,cuda")],
)
def test_wrong_setting_is_one_line_and_training_goes_on(
    built: Example, native_losses: list[str], name: str, value: str, allowed: str
) -> None:
    done = call([built.linked, TEXT, 2], **({"EBBTIDE": "1"} | CPU | {name: value}))
    assert losses(done, 2) == native_losses[:2]
    (line,) = our_lines(done.stderr)
    assert line.startswith(f"ebbtide warning {name}={value}")
    assert allowed in line and line.endswith("training goes on without Ebbtide")


def test_wrong_setting_ends_a_strict_program(built: Example) -> None:
    done = attempt([built.linked, TEXT, 2], EBBTIDE="maybe", EBBTIDE_STRICT="1", **CPU)
    assert done.returncode == 2 and done.stdout == ""
    (line,) = our_lines(done.stderr)
    assert line.startswith("ebbtide error EBBTIDE=maybe")


def test_preloaded_adaptor_of_the_wrong_kind_says_which_is_missing(built: Example) -> None:
    adaptor = built.library("libebbtide_torch_cpu.so")
    settings = CPU | {"EBBTIDE_DEVICES": "cuda"}
    done = call([built.plain, TEXT, 2], LD_PRELOAD=str(adaptor), EBBTIDE="1", **settings)
    (line,) = our_lines(done.stderr)
    assert "libebbtide_torch_cuda.so is neither linked nor preloaded" in line
