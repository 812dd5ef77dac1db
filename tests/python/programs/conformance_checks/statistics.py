"""Numbers: what counts, and as how much."""

from __future__ import annotations

import importlib.util
import os

import torch
from conformance_checks.shared import METRICS, POOLED, POOLS, assert_consistent
from conformance_rig import MIB, check, stat, take, used


@check("statistics")
def every_number_is_consistent() -> None:
    assert_consistent()
    kept = [take(mib) for mib in (3, 40, 7, 0.5)]
    assert_consistent()
    del kept[1]
    assert_consistent()
    kept.clear()
    assert_consistent()


@check("statistics")
def every_key_is_there() -> None:
    kept = take(24)
    counters = ("num_alloc_retries", "num_ooms", "num_sync_all_streams", "num_device_alloc", "num_device_free")
    unpooled = [f"{name}.{metric}" for name in ("oversize_allocations", "oversize_segments") for metric in METRICS]
    pooled = [f"{name}.{pool}.{metric}" for name in POOLED for pool in POOLS for metric in METRICS]
    stats = torch.cuda.memory_stats()
    assert {*counters, *unpooled, *pooled, "max_split_size"} <= stats.keys()
    wrong = {key: value for key, value in stats.items() if value < 0 and key != "max_split_size"}
    assert not wrong, wrong
    for name in ("requested_bytes", "allocated_bytes", "active_bytes", "reserved_bytes"):
        for pool in ("all", "large_pool"):
            assert stats[f"{name}.{pool}.peak"] >= stats[f"{name}.{pool}.current"] >= kept.numel(), (name, pool)
    assert torch.cuda.memory_stats_as_nested_dict()["allocated_bytes"]["all"]["current"] == stats["allocated_bytes.all.current"]


@check("statistics")
def a_tensor_moves_each_number_by_its_size() -> None:
    before = torch.cuda.memory_stats()
    size = 8 * MIB - 100
    tensor = torch.empty(size, dtype=torch.uint8, device="cuda")
    during = torch.cuda.memory_stats()
    del tensor
    after = torch.cuda.memory_stats()
    moves = {"allocation": 1, "active": 1, "allocated_bytes": 8 * MIB, "active_bytes": 8 * MIB, "requested_bytes": size}
    for name, move in moves.items():
        for pool, times in (("all", 1), ("large_pool", 1), ("small_pool", 0)):
            key = f"{name}.{pool}"
            assert during[f"{key}.current"] - before[f"{key}.current"] == move * times, key
            assert during[f"{key}.allocated"] - before[f"{key}.allocated"] == move * times, key
            assert during[f"{key}.freed"] == before[f"{key}.freed"], key
            assert after[f"{key}.current"] == before[f"{key}.current"], key
            assert after[f"{key}.freed"] - during[f"{key}.freed"] == move * times, key


@check("statistics")
def the_peak_is_the_highest_since_its_reset() -> None:
    base = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    assert torch.cuda.max_memory_allocated() == base
    assert torch.cuda.max_memory_reserved() == torch.cuda.memory_reserved()
    first, second = take(6), take(10)
    del first
    third = take(2)
    assert torch.cuda.max_memory_allocated() == base + 16 * MIB
    assert stat("requested_bytes.all.peak") == stat("requested_bytes.all.current") + 4 * MIB
    assert stat("allocation.all.peak") == stat("allocation.all.current")
    del second
    torch.cuda.reset_peak_memory_stats()
    assert torch.cuda.max_memory_allocated() == base + 2 * MIB
    fourth = take(4)
    del third, fourth
    assert torch.cuda.max_memory_allocated() == base + 6 * MIB
    assert torch.cuda.memory_allocated() == base


@check("statistics")
def small_tensors_count_into_the_peak() -> None:
    base = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    large = take(12)
    small = [take(0.5) for _ in range(40)]  # 20 MiB that no plan sees
    small.clear()
    assert torch.cuda.max_memory_allocated() == base + 32 * MIB
    del large
    assert torch.cuda.max_memory_allocated() == base + 32 * MIB


@check("statistics")
def tensors_of_other_streams_count_into_the_peak() -> None:
    base = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    side = torch.cuda.Stream()
    large = take(12)
    with torch.cuda.stream(side):
        gone = take(30)
        del gone
        kept = take(8)
    assert torch.cuda.max_memory_allocated() == base + 42 * MIB
    del large
    large = take(20)
    with torch.cuda.stream(side):
        gone = take(26)
        del gone
    assert torch.cuda.max_memory_allocated() == base + 54 * MIB
    del large, kept
    assert torch.cuda.max_memory_allocated() == base + 54 * MIB


@check("statistics")
def accelerator_functions_say_the_same() -> None:
    tensor = take(24)
    ours, theirs = torch.accelerator, torch.cuda
    assert ours.memory_allocated() == theirs.memory_allocated()
    assert ours.memory_reserved() == theirs.memory_reserved()
    assert ours.max_memory_allocated() == theirs.max_memory_allocated()
    assert ours.max_memory_reserved() == theirs.max_memory_reserved()
    wide = theirs.memory_stats()
    assert all(wide[key] == value for key, value in ours.memory_stats().items() if key in wide)
    del tensor
    ours.reset_peak_memory_stats()
    assert ours.max_memory_allocated() == ours.memory_allocated() == theirs.max_memory_allocated()
    ours.empty_cache()
    assert theirs.memory_reserved() == used()


@check("statistics")
def the_device_says_the_same() -> None:
    tensor = take(100)
    free, total = torch.cuda.mem_get_info()
    assert total - free == used() == torch.cuda.memory_reserved()
    assert torch.cuda.memory_allocated() >= tensor.numel()


@check("statistics")
def the_summary_shows_the_numbers() -> None:
    tensor = take(50)
    summary = torch.cuda.memory_summary()
    for row, key in (("Allocated memory", "allocated_bytes"), ("GPU reserved memory", "reserved_bytes"),
                     ("Active memory", "active_bytes"), ("Non-releasable memory", "inactive_split_bytes")):
        line = next(line for line in summary.splitlines() if row in line)
        shown, value = line.split("|")[2].split()[0], stat(f"{key}.all.current")
        assert int(shown) in (value, value >> 10, value >> 20, value >> 30), (line, value)
    del tensor


@check("statistics")
def the_profiler_sees_the_tensor() -> None:
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        tensor = take(32)
        del tensor
    changes = [event.nbytes() for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    assert changes == [32 * MIB, -32 * MIB], changes


@check("statistics")
def accumulated_numbers_start_again() -> None:
    kept = take(20)
    torch.cuda.reset_accumulated_memory_stats()
    for name in POOLED:
        assert stat(f"{name}.all.allocated") == 0 and stat(f"{name}.all.freed") == 0, name
    more = take(30)
    del kept
    assert stat("allocated_bytes.all.allocated") == 30 * MIB
    assert stat("allocated_bytes.all.freed") == 20 * MIB
    assert stat("allocation.large_pool.allocated") == stat("allocation.large_pool.freed") == 1
    del more
    assert_consistent(reset=True)


@check("statistics")
def the_trainers_memory_metrics_are_its_tensors() -> None:
    if not is_worth_importing_it():
        take(20), take(30)
        return
    metrics = Trainer().train()
    assert metrics["train_mem_gpu_alloc_delta"] == 40 * MIB, metrics
    assert metrics["train_mem_gpu_peaked_delta"] == 20 * MIB, metrics


class Trainer:
    """As much of Hugging Face's as its memory tracker sees: it names its numbers after the function that calls it."""

    def __init__(self) -> None:
        from transformers.trainer_utils import TrainerMemoryTracker

        self.tracker = TrainerMemoryTracker(skip_memory_metrics=False)
        self.tracker.start()
        self.tracker.stop_and_update_metrics()

    def train(self) -> dict[str, int]:
        self.tracker.start()
        temporary = take(60)
        del temporary
        self.kept = take(40)
        metrics: dict[str, int] = {}
        self.tracker.stop_and_update_metrics(metrics)
        return metrics


def is_worth_importing_it() -> bool:
    """It takes seconds, and with torch's own numbers Hugging Face has tried it."""
    return os.environ.get("EBBTIDE") == "1" and all(importlib.util.find_spec(name) for name in ("transformers", "psutil"))
