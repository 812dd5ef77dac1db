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
        "split": [[3 * n for n in numbers], 8 * 16],
        "replicas": [1, 9],
        "device": 1,
        "backends": ["cpu:gloo,cuda:nccl", "gloo"],
        "every": [{"rank": 9}] * 16,
        "settings": ["mine", "own"],  # rank 0's do not come
        "part": ["mine"],
        "gathered": None,
        "stored": "here",
        "other": True,
    }
    kept = [line for line in our_lines(done.stderr) if "rank 0 does not run, so rank 9 keeps the objects" in line]
    assert [line.split()[2] for line in kept] == ["broadcast_object_list:", "scatter_object_list:"]
    assert report["rank"] == 9 and report["ranks"] == 16
    assert report["uncomputed_reads"] == 0 and report["communicators"] > 0


def test_what_training_sends_is_what_the_way_of_splitting_asks_for(dryrun):
    ranks = 4
    activations = 2048 * 1024 * 4  # bytes
    # Gradients summed over ranks: all but a rank's own quarter of them, twice.
    by_replicas = 2 * 0.75 * 4 * WEIGHTS
    # Of the half of the weights that a rank's products take, half is another rank's: gathered for forward and for
    # backward, its gradients scattered. Results of the second product are summed by two ranks in forward, in backward
    # gradients of the first one's input, which nobody asks for in the first layer.
    by_both = 3 * 0.5 * 4 * WEIGHTS / 2 + 2 * 0.5 * (4 + 3) * activations
    for way, expected, share in (("ddp", by_replicas, 1), ("2d", by_both, 1 / 4)):
        done, report = dryrun(["--ranks", str(ranks)], sys.executable, PROGRAM, way)
        assert done.returncode == 0, done.stderr
        trained, time = json.loads(done.stdout.splitlines()[-1]), report["time"]
        assert trained["parameters"] == pytest.approx(WEIGHTS * share, rel=0.01)
        assert time["steps"] == 3
        assert time["unknown_launches"] == 0  # those on a DTensor's own part are operators like any other
        assert time["collective_bytes"] == pytest.approx(expected, rel=0.03)
        assert time["collective_seconds"] >= time["collective_bytes"] / PEER
        assert _foresight.exposed_seconds(time) <= time["collective_seconds"] * 1.01
        assert f"rank 0 of {ranks}: " in done.stderr and "assumed of the ranks" in done.stderr


def test_a_program_may_end_while_threads_of_torch_still_work(dryrun):
    # So many that NCCL has several roots.
    done, report = dryrun(["--ranks", "512"], sys.executable, str(PROGRAMS / "late_thread.py"))
    assert (done.returncode, done.stdout) == (0, "trained\n"), done.stderr
    assert report["communicators"] == 1


def test_all_ranks_run_one_after_the_other_and_no_group_is_told(dryrun, tmp_path):
    alone = tmp_path / "alone.py"
    alone.write_text("import os, torch\nprint('rank', os.environ['RANK'], torch.zeros(8, device='cuda').add_(1).shape)\n")
    done, report = dryrun(["--ranks", "2", "--rank", "all"], sys.executable, str(alone))
    assert done.returncode == 0, done.stderr
    assert [line.split()[1] for line in done.stdout.splitlines()] == ["0", "1"]
    assert [one["rank"] for one in report["reports"]] == [0, 1]
    told = [line for line in our_lines(done.stderr) if "no process group" in line]
    assert [f"rank {rank} of 2: no process group" in line for rank, line in enumerate(told)] == [True, True]


def test_what_one_rank_cannot_do_alone_is_one_line(dryrun, tmp_path):
    program = tmp_path / "wrong.py"
    program.write_text(
        """
import torch.distributed as dist

def attempt(*arguments, **named):
    try:
        dist.init_process_group(*arguments, **named)
    except SystemExit as end:
        print(end.code)

attempt("nccl", rank=0, world_size=4, init_method="tcp://nowhere:1")
attempt("nccl", rank=3, world_size=8, init_method="tcp://nowhere:1")
attempt("mpi")
dist.FileStore("/nowhere/at/all", 8).get("address")
"""
    )
    done, _ = dryrun(["--ranks", "8"], sys.executable, str(program))
    assert (done.returncode, done.stdout.split()) == (2, ["2", "2", "2"])
    said = our_lines(done.stderr)
    assert "makes a process group of 4 ranks: run it with --ranks 4, not 8" in said[0]
    assert "makes rank 3 in the process of rank 0" in said[1]
    assert "asks for process groups of mpi: a dry run has nccl and gloo" in said[2]
    assert "reads 'address' from its store, which another rank sets" in said[3]
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
        "flops": 3e15, "forward_flops": 1e15, "mfu": 0.5, "busy_seconds": parts | {"matrix": 3.0, "collective": 0.5},
        "stalled_seconds": parts | {"collective": 0.3}, "waiting_for_host_seconds": 0.0, "out_bytes": 0, "in_bytes": 0,
        "launches": 9, "unknown_launches": 0, "collectives": 12, "collective_seconds": 2.0, "collective_bytes": 3 << 30,
    }  # fmt: skip
    report = {"rank": 0, "ranks": 8, "communicators": 1, "devices": [], "time": time}
    lines = _foresight.time_lines(report)
    assert "2000 tokens/s of this rank" in lines[0]
    assert "rank 0 of 8: 12 collectives of 2.000 s, 3.00 GiB sent; not hidden 0.800 s (20.0 %)" in lines
    assert "no process group" in _foresight.time_lines(report | {"communicators": 0})[2]
