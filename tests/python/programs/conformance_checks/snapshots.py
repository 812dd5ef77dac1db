"""Snapshots and histories."""

from __future__ import annotations

import pathlib
import pickle
import tempfile

import torch
from conformance_checks.shared import blocks_of
from conformance_rig import MIB, check, stat, take


@check("snapshots")
def a_snapshot_holds_each_tensor_as_a_block() -> None:
    tensors = [take(mib) for mib in (30, 4, 90.25, 0.25, 61)]
    del tensors[1]
    snapshot = torch.cuda.memory_snapshot()
    found = blocks_of(snapshot)
    for tensor in tensors:
        assert found[tensor.data_ptr()]["requested_size"] == tensor.numel()
    assert sum(segment["total_size"] for segment in snapshot) == torch.cuda.memory_reserved()
    assert sum(segment["allocated_size"] for segment in snapshot) == torch.cuda.memory_allocated()
    assert sum(segment["active_size"] for segment in snapshot) == stat("active_bytes.all.current")
    assert len(found) == stat("allocation.all.current")


def make_named_tensor() -> torch.Tensor:
    return take(25)


def assert_alternating(events: list[dict], address: int, actions: tuple[str, ...]) -> None:
    mine = [event["action"] for event in events if event["addr"] == address and not event["action"].startswith("segment")]
    assert tuple(mine) == actions, mine


@check("snapshots")
def a_history_tells_where_tensors_came_from() -> None:
    torch.cuda.memory._record_memory_history(max_entries=500, stacks="python")
    try:
        kept, gone = make_named_tensor(), take(3)
        kept_at, gone_at = kept.data_ptr(), gone.data_ptr()
        del gone
        snapshot = torch.cuda.memory._snapshot()
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "snapshot.pickle"
            torch.cuda.memory._dump_snapshot(str(path))
            assert pickle.loads(path.read_bytes()).keys() >= {"segments", "device_traces"}
    finally:
        torch.cuda.memory._record_memory_history(enabled=None)
    block = blocks_of(snapshot["segments"])[kept_at]
    assert "make_named_tensor" in [frame["name"] for frame in block["frames"]]
    events = snapshot["device_traces"][0]
    assert_alternating(events, kept_at, ("alloc",))
    assert_alternating(events, gone_at, ("alloc", "free_requested", "free_completed"))
    assert [event["time_us"] for event in events] == sorted(event["time_us"] for event in events)
    made = next(event for event in events if event["action"] == "alloc" and event["addr"] == kept_at)
    assert made["size"] == 25 * MIB and "make_named_tensor" in [frame["name"] for frame in made["frames"]]


@check("snapshots")
def a_history_keeps_the_newest_entries_and_draws() -> None:
    torch.cuda.memory._record_memory_history(max_entries=20, stacks="python")
    try:
        for _ in range(20):
            last = take(5)
        snapshot = torch.cuda.memory._snapshot()
    finally:
        torch.cuda.memory._record_memory_history(enabled=None)
    events = snapshot["device_traces"][0]
    assert len(events) == 20
    assert events[-1]["action"] in ("snapshot", "free_completed", "alloc"), events[-1]
    assert any(event["addr"] == last.data_ptr() for event in events)
    from torch.cuda import _memory_viz

    assert "<html" in _memory_viz.trace_plot(snapshot) or "<script" in _memory_viz.trace_plot(snapshot)
    assert "<script" in _memory_viz.segment_plot(snapshot)
    assert _memory_viz.segsum(snapshot) and _memory_viz.trace(snapshot)
    assert torch.cuda.memory._snapshot()["device_traces"][0] == []
