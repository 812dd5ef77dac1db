"""`ebbtide dryrun --ranks`: one rank of an unmodified torch.distributed program, without a network."""

from __future__ import annotations

import json
import sys

import pytest
from conftest import PROGRAMS, our_lines
from dryrun_run import simulated_environment
from ebbtide import _foresight, _ranks

PROGRAM = str(PROGRAMS / "ranks.py")
PEER = 450e9 * 0.803  # bytes a second that a ring of H200s reaches on one node
WEIGHTS = 4 * (2 * 4 * 1024 * 1024 + 5 * 1024)  # numbers in the model


@pytest.fixture
def dryrun(run_python, native, tmp_path):
    """dryrun(options, program...): what it printed, and the report."""
    simulated_environment(tmp_path)  # skips where there are no stand-ins

    def run(options: list[str], *program: str):
        report = tmp_path / "ranks.json"
        report.unlink(missing_ok=True)
        command = ["-m", "ebbtide", "dryrun", *options, "--json", str(report), "--", *program]
        done = run_python(command, EBBTIDE_NATIVE_DIR=str(native))
        found = json.loads(report.read_text()) if report.exists() else None
        return done, found

    return run


def test_a_rank_sees_its_place_and_values_as_if_all_ranks_held_the_same(dryrun):
    done, report = dryrun(["--ranks", "16", "--rank", "9"], sys.executable, PROGRAM, "values")
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    numbers = list(range(1, 17))
    assert seen == {
        "rank": 9,
        "summed": [2 * 16 * n for n in numbers],  # by the whole world, then by two replicas
        "most": numbers,
        "scattered": [16 * 10],
        "sent": [10] * 16,
        "objects": [{"rank": 9}] * 16,
        "replicas": [1, 9],
        "device": 1,
    }
    assert report["rank"] == 9 and report["ranks"] == 16
    assert report["uncomputed_reads"] == 0 and report["communicators"] > 0


def test_what_training_sends_is_what_the_way_of_splitting_asks_for(dryrun):
    ranks = 4
    share = (ranks - 1) / ranks
    activations = 2048 * 1024 * 4  # bytes
    found = {}
    for way in ("ddp", "fsdp", "tp"):
        done, report = dryrun(["--ranks", str(ranks)], sys.executable, PROGRAM, way)
        assert done.returncode == 0, done.stderr
        trained = json.loads(done.stdout.splitlines()[-1])
        found[way] = (trained, report["time"])
        assert report["time"]["steps"] == 3
        assert f"rank 0 of {ranks}: " in done.stderr and "assumed of the ranks" in done.stderr
    sent = {way: time["collective_bytes"] for way, (_, time) in found.items()}
    # Gradients summed over ranks; weights gathered for forward and for backward, gradients scattered;
    # results of the second product summed in forward, gradients of the first one's input in backward.
    assert sent["ddp"] == pytest.approx(2 * share * 4 * WEIGHTS, rel=0.01)
    assert sent["fsdp"] == pytest.approx(3 * share * 4 * WEIGHTS, rel=0.03)
    layers, inputs = 4, 3  # nobody asks for the gradient of the first input
    assert sent["tp"] == pytest.approx(2 * share * (layers + inputs) * activations, rel=0.05)
    for way, (trained, time) in found.items():
        assert time["collective_seconds"] >= sent[way] / PEER
        assert _foresight.exposed_seconds(time) <= time["collective_seconds"] * 1.01
        expected = WEIGHTS if way == "ddp" else WEIGHTS / ranks
        assert trained["parameters"] == pytest.approx(expected, rel=0.01)


def test_all_ranks_run_one_after_the_other_and_no_group_is_told(dryrun, tmp_path):
    alone = tmp_path / "alone.py"
    alone.write_text("import os, torch\nprint('rank', os.environ['RANK'], torch.zeros(8, device='cuda').add_(1).shape)\n")
    done, report = dryrun(["--ranks", "2", "--rank", "all"], sys.executable, str(alone))
    assert done.returncode == 0, done.stderr
    assert [line.split()[1] for line in done.stdout.splitlines()] == ["0", "1"]
    assert [one["rank"] for one in report["reports"]] == [0, 1]
    told = [line for line in our_lines(done.stderr) if "no process group" in line]
    assert [f"rank {rank} of 2: no process group" in line for rank, line in enumerate(told)] == [True, True]


def test_a_group_of_another_size_is_one_line(dryrun, tmp_path):
    other = tmp_path / "other.py"
    other.write_text(
        "import torch\ntorch.distributed.init_process_group('nccl', rank=0, world_size=4, init_method='tcp://nowhere:1')\n"
    )
    done, _ = dryrun(["--ranks", "8"], sys.executable, str(other))
    assert done.returncode == 2
    assert "makes a process group of 4 ranks: run it with --ranks 4, not 8" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("ranks", "rank", "said"),
    [
        (0, "0", "--ranks 0: allowed is 1 to 65536"),
        (8, "8", "--rank 8: allowed is 0 to 7, or all"),
        (8, "first", "--rank first: allowed is 0 to 7, or all"),
    ],
)
def test_wrong_ranks_are_one_line(ranks, rank, said):
    with pytest.raises(_ranks.RanksError, match=said):
        _ranks.chosen(ranks, rank)


@pytest.mark.parametrize(
    "command",
    [["torchrun", "--nproc-per-node", "8", "t.py"], ["/bin/accelerate", "launch"], ["python", "-m", "torch.distributed.run"]],
)
def test_who_starts_ranks_is_refused(command):
    with pytest.raises(_ranks.RanksError, match="give the program alone"):
        _ranks.check_command(command)
    _ranks.check_command(["python", "train.py", "--launcher", "torchrun"])


def test_a_rank_is_told_what_torchrun_would_tell_it():
    told = _ranks.variables(11, 16, devices_per_node=8)
    assert (told["RANK"], told["LOCAL_RANK"], told["GROUP_RANK"]) == ("11", "3", "1")
    assert (told["WORLD_SIZE"], told["LOCAL_WORLD_SIZE"]) == ("16", "8")


def test_what_is_not_hidden_is_told():
    parts = dict.fromkeys(("matrix", "attention", "other", "copy_out", "copy_in", "unknown"), 0.0)
    time = {
        "total_seconds": 9.0, "steps": 3, "step_seconds": 4.0, "step_tokens": 8000, "tokens_per_second": 2000.0,
        "mfu": 0.5, "busy_seconds": parts | {"matrix": 3.0, "collective": 0.5},
        "stalled_seconds": parts | {"collective": 0.3}, "waiting_for_host_seconds": 0.0, "out_bytes": 0, "in_bytes": 0,
        "launches": 9, "unknown_launches": 0, "collectives": 12, "collective_seconds": 2.0, "collective_bytes": 3 << 30,
    }  # fmt: skip
    report = {"rank": 0, "ranks": 8, "communicators": 1, "devices": [], "time": time}
    lines = _foresight.time_lines(report)
    assert "2000 tokens/s of this rank" in lines[0]
    assert "rank 0 of 8: 12 collectives of 2.000 s, 3.00 GiB sent; not hidden 0.800 s (20.0 %)" in lines
    assert "no process group" in _foresight.time_lines(report | {"communicators": 0})[2]
