"""NCCL's registration of memory: the arena is a segment of torch's own allocator. A tracker of its trace, attached
before there is an arena or after, hears of every byte that the arena's tensors lie in, and of those given back."""

from __future__ import annotations

import json

import pytest
from conftest import PROGRAMS, our_lines
from dryrun_run import simulated_environment


@pytest.fixture(scope="module")
def tracker(tmp_path_factory):
    from fakes.segment_tracker import build

    return build(tmp_path_factory.mktemp("tracker"))


# `attached_at`: a round before there is an arena, or one in which it serves.
@pytest.mark.parametrize(("mode", "expandable", "attached_at"), [("0", True, 0), ("1", True, 7), ("1", False, 0)])
def test_a_tracker_hears_of_the_arena(run_python, native, tmp_path, tracker, mode, expandable, attached_at):
    done = run_python(
        [str(PROGRAMS / "segments.py"), str(tracker), str(attached_at)],
        **simulated_environment(tmp_path, capacity="2GiB"),
        EBBTIDE=mode, EBBTIDE_NATIVE_DIR=str(native), EBBTIDE_REPORT="off",
        PYTORCH_CUDA_ALLOC_CONF=f"expandable_segments:{expandable}",
    )
    assert done.returncode == 0, done.stderr
    assert [line for line in our_lines(done.stderr) if "is not simulated" not in line] == []
    answer = json.loads(done.stdout)
    assert (answer["served"] > 0) == (mode == "1")
    assert answer["changes"] > 2


# With a trace, what torch does is written down under its lock.
@pytest.mark.parametrize("trace", ("", "run.ebb"))
def test_what_is_done_under_torchs_own_lock_waits_for_no_lock_of_ours(run_python, native, tmp_path, tracker, trace):
    done = run_python(
        [str(PROGRAMS / "lock_order.py"), str(tracker)],
        **simulated_environment(tmp_path, capacity="2GiB"),
        EBBTIDE="1", EBBTIDE_NATIVE_DIR=str(native), EBBTIDE_REPORT="off",
        EBBTIDE_TRACE=str(tmp_path / trace) if trace else "",
    )
    assert done.returncode == 0, done.stderr


# Tensors that were shared with other processes are freed so.
def test_a_callback_of_torchs_may_free_what_is_ours(run_python, native, tmp_path, tracker):
    done = run_python(
        [str(PROGRAMS / "freeing_callback.py"), str(tracker)],
        **simulated_environment(tmp_path, capacity="2GiB"),
        EBBTIDE="1", EBBTIDE_NATIVE_DIR=str(native), EBBTIDE_REPORT="off",
    )
    assert done.returncode == 0, done.stderr
