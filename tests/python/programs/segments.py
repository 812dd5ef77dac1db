"""Follows the device's segments as torch's NCCL process group does, while an arena is made, grows and is given back.

    segments.py LIBRARY ROUND     attaches the tracker at the beginning of that round; prints what the arena served
"""

from __future__ import annotations

import json
import pathlib
import sys

import ebbtide
import torch

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from fakes.segment_tracker import SegmentTracker, snapshot_ranges  # noqa: E402

MIB = 1 << 20
# MiB of a round's tensors. The arena is made, grows twice (where segments are expandable), and has more than it needs.
ROUNDS = [(90, 40)] * 5 + [(200, 150, 70)] * 5 + [(400, 300, 90)] * 5 + [(90, 40)] * 5


def take(mib: int) -> torch.Tensor:
    return torch.empty(mib * MIB, dtype=torch.uint8, device="cuda")


def check(tracker: SegmentTracker, *live: torch.Tensor) -> None:
    tracker.update()
    assert tracker.ranges == snapshot_ranges(0), "the snapshot lists other memory than the tracker heard of"
    assert tracker.total() == torch.cuda.memory_reserved()
    assert all(tracker.holds(tensor) for tensor in live), "a tensor lies in memory that no tracker heard of"


def served() -> int:
    return ebbtide.stats("cuda:0").planned_allocations if ebbtide.is_active() else 0


def run_round(sizes: tuple[int, ...], parameter: torch.Tensor, tracker: SegmentTracker | None) -> None:
    ebbtide.step()
    kept = take(sizes[0])
    for size in sizes[1:]:
        temporary = take(size)
        if tracker is not None:
            check(tracker, parameter, kept, temporary)
        del temporary
    del kept
    if ebbtide.is_active():
        ebbtide.wait_for_plans()


def main() -> None:
    library, attached_at = pathlib.Path(sys.argv[1]), int(sys.argv[2])
    parameter = take(30)
    tracker = None
    for number, sizes in enumerate(ROUNDS):
        if number == attached_at:
            tracker = SegmentTracker(library)
        run_round(sizes, parameter, tracker)
    assert tracker is not None
    before = tracker.total()
    torch.cuda.empty_cache()  # gives back what is idle, the arena's included
    check(tracker, parameter)
    assert tracker.total() < before
    for _ in range(3):
        run_round(ROUNDS[-1], parameter, tracker)
    held = take(1500)  # the device has 2 GiB: what the arena does not need is given back for it
    check(tracker, parameter, held)
    print(json.dumps({"served": served(), "changes": tracker.changes}))


main()
