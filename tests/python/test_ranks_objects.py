"""What ranks that run alone, or one after the other, hand each other: parts of checkpoints, shapes, objects."""

from __future__ import annotations

import json
import sys

import pytest
from conftest import PROGRAMS, our_lines
from dryrun_run import simulated_environment

# A whole checkpoint, as another program writes it.
WRITE_WHOLE = """
import sys, torch, torch.distributed.checkpoint as checkpoint
model = torch.nn.Sequential(torch.nn.Linear(256, 512), torch.nn.Linear(512, 256))
checkpoint.save(model.state_dict(), checkpoint_id=sys.argv[1] + "/whole")
"""


@pytest.fixture
def dryrun(run_python, native, tmp_path):
    """dryrun(options, program...): what it printed."""
    simulated_environment(tmp_path)  # skips where there are no stand-ins

    def run(options: list[str], *program: str):
        command = ["-m", "ebbtide", "dryrun", "--ranks", "4", *options, "--", sys.executable, *program]
        return run_python(command, EBBTIDE_NATIVE_DIR=str(native))

    return run


def answers(done) -> list:
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_rank_saves_and_loads_its_own_part(dryrun, run_python, tmp_path):
    run_python(["-c", WRITE_WHOLE, str(tmp_path)])
    for rank in ("0", "3"):
        done = dryrun(["--rank", rank], str(PROGRAMS / "checkpoint.py"), str(tmp_path))
        ((saved, saved_later, _),) = answers(done)
        # A quarter of the weights and of Adam's two moments; what a file says of itself is small.
        own = 3 * 4 * (2 * 256 * 512 + 768) / 4
        assert saved == pytest.approx(own, rel=0.2)
        assert saved_later == pytest.approx(own, rel=0.2)


def test_a_rank_that_runs_later_gets_what_rank_0_has_handed_on(dryrun, run_python, tmp_path):
    run_python(["-c", WRITE_WHOLE, str(tmp_path)])
    program = [str(PROGRAMS / "checkpoint.py"), str(tmp_path), "from_rank_0"]
    assert [shape for _, _, shape in answers(dryrun(["--rank", "all"], *program))] == [[512, 256]] * 4
    done = dryrun(["--rank", "2"], *program)
    assert done.returncode != 0
    told = [line for line in our_lines(done.stderr) if "broadcast_object_list: rank 0 does not run" in line]
    assert len(told) == 1 and "--rank all runs one after the other" in told[0]


@pytest.mark.parametrize("kind", ["asked", "interleaved"])
def test_stages_that_run_one_after_the_other_learn_their_shapes(dryrun, kind):
    stages = answers(dryrun(["--rank", "all"], str(PROGRAMS / "pipeline.py"), kind))
    first = 256 if kind == "asked" else 512  # of two stages on rank 0 the second is shown
    assert stages == [
        [rank, [[8, first if rank == 0 else 512]], 4 if rank == 3 else 0] for rank in range(4)
    ]


def test_a_stage_alone_is_told_its_shapes_or_says_so(dryrun):
    assert answers(dryrun(["--rank", "3"], str(PROGRAMS / "pipeline.py"), "told")) == [[3, [[8, 512]], 4]]
    done = dryrun(["--rank", "3"], str(PROGRAMS / "pipeline.py"), "asked")
    assert done.returncode != 0
    (told,) = [line for line in our_lines(done.stderr) if "recv_object_list: rank 2 does not run" in line]
    assert "input_args and output_args" in told and "--rank all" in told
