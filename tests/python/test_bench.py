"""The benchmarks: scenarios survive a command line, and a run gives numbers that add up."""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BENCH = ROOT / "bench"
sys.path.insert(0, str(BENCH))

import fragmentation  # noqa: E402
import launch  # noqa: E402
import scenarios  # noqa: E402

TINY = {
    "hidden": 64,
    "mlp": 128,
    "heads": 4,
    "kv_heads": 2,
    "layers": 2,
    "vocabulary": 256,
    "dtype": "float32",
    "steps": 3,
}


def shrunk(name: str, **changes) -> scenarios.Scenario:
    row = scenarios.ROWS[name]
    lengths = (row.lengths[0] // 512, row.lengths[1] // 512)
    return dataclasses.replace(row, lengths=lengths, **{**TINY, **changes})


def test_the_rows_are_seven_programs_and_the_same_with_masks():
    plain = [row for row in scenarios.ROWS.values() if not row.masks and row.offload < 0]
    masked = [row for row in scenarios.ROWS.values() if row.masks]
    assert len(plain) == len(masked) == 7
    for one, other in zip(plain, masked, strict=True):
        assert dataclasses.replace(other, name=one.name, masks=False) == one


@pytest.mark.parametrize("name", scenarios.ROWS)
def test_a_changed_row_survives_its_own_command_line(name):
    row = shrunk(name, seed=7, model="qwen3", clip=True, batches=(2, 3), evaluate_every=2)
    parser = argparse.ArgumentParser()
    parser.add_argument("row")
    scenarios.add_arguments(parser)
    options = parser.parse_args(scenarios.as_arguments(row))
    assert scenarios.apply_arguments(scenarios.ROWS[options.row], options) == row


def test_shapes_repeat_with_the_seed_and_stay_in_range():
    row = scenarios.ROWS["random-batch"]
    first = list(itertools.islice(row.shapes(), 200))
    assert first == list(itertools.islice(row.shapes(), 200))
    other = dataclasses.replace(row, seed=row.seed + 1)
    assert first != list(itertools.islice(other.shapes(), 200))
    assert {batch for batch, _ in first} == {1, 2, 3, 4}
    assert all(row.lengths[0] <= length <= row.lengths[1] for _, length in first)


def test_rows_are_chosen_by_name_and_number():
    chosen = scenarios.chosen_rows("2,fixed-8k")
    assert [row.name for row in chosen] == ["fixed-64k", "fixed-8k"]
    with pytest.raises(SystemExit, match="unknown row 99"):
        scenarios.chosen_rows("99")


def run_row(run_python, row: scenarios.Scenario, **variables: str) -> dict:
    program = [str(BENCH / "run_row.py"), *scenarios.as_arguments(row), "--device", "cpu"]
    done = run_python([*program, "--real-values"], **variables)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("model", ["plain", "encoder", "llama", "qwen3", "gpt2"])
def test_every_model_trains_with_every_option(run_python, request, model):
    if model in ("llama", "qwen3", "gpt2"):
        request.getfixturevalue("needs_transformers")
    row = shrunk(
        "late-zero-grad-masks", model=model, checkpointing=True, micro_batches=2, evaluate_every=2,
        batches=(1, 2),
    )
    result = run_row(run_python, row)
    assert result["steps_done"] == 3 and result["out_of_memory"] == ""
    assert result["ebbtide"] is None
    # Half of the loss, as a micro-batch counts: ln(256) / 2 for a model that knows nothing.
    assert all(2.0 < loss < 4.0 for loss in result["losses"])


def test_a_run_under_ebbtide_has_its_statistics_and_the_same_losses(run_python, native):
    row = shrunk("fixed-8k", model="plain", steps=8)
    plain = run_row(run_python, row)
    ours = run_row(
        run_python, row, EBBTIDE="1", EBBTIDE_DEVICES="cpu", EBBTIDE_REPORT="off",
        EBBTIDE_NATIVE_DIR=str(native),
    )
    assert ours["losses"] == plain["losses"]
    assert ours["ebbtide"]["allocations"] > 0


def started(monkeypatch, run, *arguments: str) -> dict:
    """What launch.run answers where `run` stands for the process that it starts."""
    monkeypatch.setattr(launch.child_process, "run", run)
    options = fragmentation.parse(["--real", *arguments])
    return launch.run(scenarios.ROWS["fixed-8k"], "native", options)


def test_a_real_device_trains_on_real_values(monkeypatch):
    commands = []

    def run(command, *_):
        commands.append(command)
        return subprocess.CompletedProcess(command, 1, "", "RuntimeError: gone\nCompile with `TORCH_USE_CUDA_DSA`")

    assert started(monkeypatch, run)["error"] == "exit 1: RuntimeError: gone"
    assert "--real-values" in commands[0]


def test_no_run_goes_on_after_the_seconds(monkeypatch):
    def run(command, timeout, environment):
        raise subprocess.TimeoutExpired(command, timeout, stderr=f"{timeout:.0f}")

    assert started(monkeypatch, run) == {"error": "no result after 600 s", "stderr": "600"}
    assert started(monkeypatch, run, "--seconds", "30") == {"error": launch.OUT_OF_TIME, "stderr": "30"}
    assert started(monkeypatch, run, "--seconds", "0") == {"error": launch.OUT_OF_TIME}


@pytest.mark.parametrize(
    ("script", "arguments", "named"),
    [
        ("fragmentation.py", ["--allocators", "jemalloc"], "jemalloc"),
        ("fragmentation.py", ["--rows", "nonsense"], "nonsense"),
        ("smallest_device.py", ["--real"], "--real"),
    ],
)
def test_a_wrong_argument_is_named(run_python, script, arguments, named):
    done = run_python([str(BENCH / script), *arguments])
    assert done.returncode != 0 and named in done.stderr.splitlines()[-1]


def simulated(native: pathlib.Path) -> None:
    if not any((native / "dryrun").glob("libcudart.so.*")):
        pytest.skip("no stand-in CUDA libraries were built (torch here is not a CUDA build)")


def test_the_table_measures_the_simulated_devices_own_peak(run_python, native, tmp_path):
    simulated(native)
    out = tmp_path / "out.json"
    row = ["--rows", "fixed-8k", "--hidden", "512", "--mlp", "1024", "--heads", "8", "--kv-heads",
           "8", "--layers", "2", "--lengths", "2048", "--steps", "8", "--model", "plain"]
    done = run_python(
        [str(BENCH / "fragmentation.py"), *row, "--json", str(out)], EBBTIDE_NATIVE_DIR=str(native)
    )
    assert done.returncode == 0, done.stderr
    (entry,) = json.loads(out.read_text())
    results = entry["results"]
    assert list(results) == ["native", "expandable", "ebbtide", "ebbtide+plan"]
    for name, result in results.items():
        assert "error" not in result, (name, result)
        assert result["simulated"] and result["steps_done"] == 8
        # The device holds at least what torch has allocated, and torch the same under all.
        assert result["held_bytes"] >= result["peak_live_bytes"] > 50e6
        assert abs(result["peak_live_bytes"] / entry["peak_live_bytes"] - 1) < 0.05
    assert results["ebbtide"]["ebbtide"]["planned_bytes"] > 0
    # Served from its first iteration: more of all bytes than the run that had to observe first.
    with_plan, without = results["ebbtide+plan"]["ebbtide"], results["ebbtide"]["ebbtide"]
    assert with_plan["planned_bytes"] > without["planned_bytes"]


@pytest.mark.parametrize(("model", "alpha"), [("llama", "0"), ("gpt2", "1")])
def test_peaks_of_offload_are_what_must_be_there(model, alpha, native, needs_transformers):
    import offload_bytes

    arguments = f"--tokens 32768 --layers 3 --alphas {alpha} --keep-last 1".split()
    rows = offload_bytes.run(model, arguments)
    assert len(rows) == 2  # with and without a host budget
    for row in rows:
        assert max(offload_bytes.ratios(row)) <= offload_bytes.BAR, row
        assert min(offload_bytes.ratios(row)) >= 0.9, row  # what must be there is no more than that
        assert row["host_peak"] <= (row["host"] or row["host_peak"])
        assert row["pinnings"] <= 8
