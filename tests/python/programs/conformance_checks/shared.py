"""What several groups of checks assert."""

from __future__ import annotations

import torch
from conformance_rig import MIB, used

POOLS = ("all", "small_pool", "large_pool")
METRICS = ("current", "peak", "allocated", "freed")
POOLED = (
    "allocation",
    "segment",
    "active",
    "inactive_split",
    "allocated_bytes",
    "reserved_bytes",
    "active_bytes",
    "inactive_split_bytes",
    "requested_bytes",
)


def assert_consistent(reset: bool = False) -> None:
    stats = torch.cuda.memory_stats()
    for name in POOLED:
        for pool in POOLS:
            current, peak, taken, freed = (stats[f"{name}.{pool}.{metric}"] for metric in METRICS)
            assert 0 <= current <= peak, (name, pool, current, peak)
            assert taken >= 0 and freed >= 0, (name, pool, taken, freed)
            assert reset or current == taken - freed, (name, pool, current, taken, freed)
        for metric in ("current", "allocated", "freed"):
            whole, small, large = (stats[f"{name}.{pool}.{metric}"] for pool in POOLS)
            assert whole == small + large, (name, metric, whole, small, large)
    reserved, active, allocated, requested, split = (
        stats[f"{name}_bytes.all.current"]
        for name in ("reserved", "active", "allocated", "requested", "inactive_split")
    )
    assert requested <= allocated <= active <= reserved, (requested, allocated, active, reserved)
    assert active + split <= reserved, (active, split, reserved)
    assert reserved == torch.cuda.memory_reserved() == used()
    assert allocated == torch.cuda.memory_allocated()


def blocks_of(snapshot: list[dict]) -> dict[int, dict]:
    """Blocks in use, by address, after checking that segments are their blocks' sums."""
    found = {}
    for segment in snapshot:
        address = segment["address"]
        for block in segment["blocks"]:
            assert block["address"] == address, (block, address)
            address += block["size"]
            if block["state"] == "active_allocated":
                found[block["address"]] = block
        assert address == segment["address"] + segment["total_size"]
        mine = [block for block in segment["blocks"] if block["state"] == "active_allocated"]
        assert segment["allocated_size"] == sum(block["size"] for block in mine)
        assert segment["requested_size"] == sum(block["requested_size"] for block in mine)
    return found


def numbers(start: int, count: int = MIB) -> torch.Tensor:
    """Integers, which the simulated device computes: 8 MiB by default."""
    return torch.arange(start, start + count, device="cuda")
