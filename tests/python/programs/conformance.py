"""What torch's memory functions must do, whatever allocator is under them.

    conformance.py GROUP      prints a line of JSON for each check of the group

The assertions are the same for torch's own allocator and for Ebbtide, before and under a plan. They run
on simulated devices of 2 GiB (test_conformance.py).
"""

from __future__ import annotations

import functools
import os
import pathlib
import pickle
import tempfile
import threading

import torch
from conformance_rig import MIB, check, main, raised, stat, take, used

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
    assert _memory_viz.segsum(snapshot) and _memory_viz.trace(snapshot)
    assert torch.cuda.memory._snapshot()["device_traces"][0] == []


@check("memory ends", served=False)
def too_large_a_tensor_is_an_error_that_can_be_caught() -> None:
    before, failures = torch.cuda.memory_allocated(), stat("num_ooms")
    text = raised(torch.OutOfMemoryError, lambda: take(5000))
    assert text.startswith("CUDA out of memory. Tried to allocate 4.88 GiB. GPU 0 has a total capacity of 2.00 GiB")
    assert stat("num_ooms") == failures + 1
    assert torch.cuda.memory_allocated() == before
    assert_consistent()


@functools.cache
def told() -> list[tuple[int, ...]]:
    """Failures that an observer was told of, from the first call on."""
    failures: list[tuple[int, ...]] = []
    torch._C._cuda_attach_out_of_memory_observer(lambda *facts: failures.append(facts))
    return failures


@check("memory ends")
def what_was_freed_can_be_had_in_one_piece() -> None:
    failures, calls = stat("num_ooms"), len(told())
    parts = [take(300) for _ in range(5)]
    parts.clear()
    assert take(1700).numel() == 1700 * MIB
    small = [take(0.5) for _ in range(2800)]
    assert stat("num_ooms") == failures and len(told()) == calls
    small.clear()
    assert_consistent(reset=True)


@check("memory ends")
def raw_memory_can_be_had_once_tensors_are_gone() -> None:
    parts = [take(300) for _ in range(5)]
    parts.clear()
    address = torch.cuda.caching_allocator_alloc(1700 * MIB)
    torch.cuda.caching_allocator_delete(address)
    assert take(600).numel() == 600 * MIB


@check("memory ends")
def emptying_the_cache_gives_back_what_is_idle() -> None:
    parts = [take(200) for _ in range(4)]
    live = torch.cuda.memory_allocated() - 800 * MIB
    parts.clear()
    torch.cuda.empty_cache()
    assert torch.cuda.memory_reserved() == used() <= live + 100 * MIB
    assert take(1500).numel() == 1500 * MIB


@check("memory ends")
def an_exception_frees_what_its_frames_held() -> None:
    before = torch.cuda.memory_allocated()

    def fail() -> None:
        held = take(700)
        raise ValueError(held.numel())

    raised(ValueError, fail)
    assert torch.cuda.memory_allocated() == before


@check("memory ends", served=None)
def a_fraction_of_the_device_is_a_limit() -> None:
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(0.5)
    try:
        kept = take(600)
        raised(torch.OutOfMemoryError, lambda: take(600))
        assert torch.cuda.memory_reserved() <= 1024 * MIB
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert take(600).numel() == kept.numel()


@check("memory ends", served=None)
def observers_are_told_once_of_each_failure() -> None:
    before = len(told())
    kept = take(900)
    raised(torch.OutOfMemoryError, lambda: take(1800))
    assert len(told()) == before + 1
    device, asked, *_ = told()[-1]
    assert (device, asked) == (0, 1800 * MIB)
    assert take(900).numel() == kept.numel()
    assert len(told()) == before + 1


def numbers(start: int, count: int = MIB) -> torch.Tensor:
    """Integers, which the simulated device computes: 8 MiB by default."""
    return torch.arange(start, start + count, device="cuda")


@check("streams")
def a_tensor_used_on_another_stream_keeps_its_bytes() -> None:
    side = torch.cuda.Stream()
    tensor = numbers(5)
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        doubled = tensor * 2
        tensor.record_stream(side)
    del tensor
    other = numbers(0) * 0
    torch.cuda.current_stream().wait_stream(side)
    assert doubled[10].item() == 30 and other[10].item() == 0
    torch.cuda.synchronize()
    del doubled, other
    assert_consistent(reset=True)


@check("streams")
def tensors_of_another_stream_are_tensors() -> None:
    side = torch.cuda.Stream()
    base = torch.cuda.memory_allocated()
    first = numbers(1)
    with torch.cuda.stream(side):
        second = numbers(2)
        third = first + second
    torch.cuda.current_stream().wait_stream(side)
    assert torch.cuda.memory_allocated() == base + 24 * MIB
    assert third[7].item() == 17
    del first, second, third
    assert torch.cuda.memory_allocated() == base


@check("streams")
def events_time_and_order() -> None:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    tensor = numbers(3)
    end.record()
    end.synchronize()
    assert start.elapsed_time(end) >= 0 and tensor[1].item() == 4


@check("streams")
def another_thread_may_free() -> None:
    base = torch.cuda.memory_allocated()
    tensors = [take(20), take(30)]
    thread = threading.Thread(target=tensors.clear)
    thread.start()
    thread.join()
    assert torch.cuda.memory_allocated() == base


@check("streams")
def threads_never_share_a_byte() -> None:
    base = torch.cuda.memory_allocated()
    wrong: list[int] = []

    def work(number: int) -> None:
        kept = torch.full((MIB // 4,), number, dtype=torch.int64, device="cuda")
        for _ in range(5):
            other = torch.full((MIB // 4,), -number, dtype=torch.int64, device="cuda")
            if not bool((kept == number).all()) or not bool((other == -number).all()):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert torch.cuda.memory_allocated() == base


@check("streams")
def backward_frees_on_its_own_thread() -> None:
    weight = torch.ones(2 * MIB, device="cuda", requires_grad=True)
    base = torch.cuda.memory_allocated()
    ((weight * 2).exp().sum()).backward()
    assert torch.cuda.memory_allocated() == base + 8 * MIB
    weight.grad = None
    assert torch.cuda.memory_allocated() == base


@check("pools")
def storages_can_be_resized_and_taken_over() -> None:
    base = torch.cuda.memory_allocated()
    tensor = numbers(0)
    storage = tensor.untyped_storage()
    assert torch._C._has_Standard_Deleter(storage._cdata)
    storage.resize_(0)
    assert torch.cuda.memory_allocated() == base
    storage.resize_(8 * MIB)
    assert torch.cuda.memory_allocated() == base + 8 * MIB
    alias = torch.tensor([], dtype=torch.int64, device="cuda").set_(storage, 0, (MIB,))
    del tensor, storage
    alias.fill_(4)
    assert alias[3].item() == 4
    assert torch.cuda.memory_allocated() == base + 8 * MIB


@check("pools", served=False)
def a_pool_keeps_its_tensors_to_itself() -> None:
    pool = torch.cuda.MemPool()
    with torch.cuda.use_mem_pool(pool):
        tensor = take(30)
        assert torch._C._has_Standard_Deleter(tensor.untyped_storage()._cdata)
    (segment,) = pool.snapshot()
    assert segment["address"] <= tensor.data_ptr() < segment["address"] + segment["total_size"]
    everything = blocks_of(torch.cuda.memory_snapshot())
    assert everything[tensor.data_ptr()]["requested_size"] == 30 * MIB
    del tensor, pool
    torch.cuda.empty_cache()
    assert_consistent(reset=True)


@check("pools")
def outside_a_pool_nothing_changes() -> None:
    before = take(12)
    pool = torch.cuda.MemPool()
    with torch.cuda.use_mem_pool(pool):
        inside = take(14)
    after = take(16)
    inner = {block["address"] for segment in pool.snapshot() for block in segment["blocks"]}
    assert inside.data_ptr() in inner
    assert not {before.data_ptr(), after.data_ptr()} & inner
    del before, inside, after, pool


@check("pools", served=False)
def without_caching_memory_goes_straight_back() -> None:
    torch.cuda.empty_cache()
    base, allocated = used(), torch.cuda.memory_allocated()
    torch.cuda.caching_allocator_enable(False)
    try:
        tensor = take(64)
        assert used() == base + 64 * MIB
        assert torch.cuda.memory_allocated() == allocated
        del tensor
        assert used() == base
    finally:
        torch.cuda.caching_allocator_enable(True)


@check("pools", served=False)
def raw_memory_counts_as_allocated() -> None:
    base = torch.cuda.memory_allocated()
    address = torch.cuda.caching_allocator_alloc(40 * MIB)
    assert torch.cuda.memory_allocated() == base + 40 * MIB
    torch.cuda.caching_allocator_delete(address)
    assert torch.cuda.memory_allocated() == base
    assert torch.cuda.get_allocator_backend() == "native"


@check("pools")
def devices_have_numbers_of_their_own() -> None:
    bases = [torch.cuda.memory_allocated(device) for device in range(2)]
    here, there = take(10), take(22, device=1)
    moved = numbers(6).to("cuda:1")
    assert moved[2].item() == 8 and moved.get_device() == 1
    assert torch.cuda.memory_allocated(0) == bases[0] + 10 * MIB
    assert torch.cuda.memory_allocated(1) == bases[1] + 30 * MIB
    assert torch.cuda.memory_reserved(1) == used(1)
    with torch.cuda.device(1):
        assert torch.empty(3 * MIB, dtype=torch.uint8, device="cuda").get_device() == 1
    del here, there, moved
    assert [torch.cuda.memory_allocated(device) for device in range(2)] == bases


@check("pools", served=False)
def a_graph_that_cannot_be_captured_harms_nothing() -> None:
    def capture() -> None:
        with torch.cuda.graph(torch.cuda.CUDAGraph()):
            take(8)

    raised(RuntimeError, capture)
    assert take(8).numel() == 8 * MIB


@check("uncached", served=False)
def nothing_is_cached() -> None:
    assert "PYTORCH_NO_CUDA_MEMORY_CACHING" in os.environ
    base = used()
    tensor, other = take(64), take(4)
    assert used() == base + 68 * MIB
    assert torch.cuda.memory_allocated() == torch.cuda.memory_reserved() == 0
    del tensor
    assert used() == base + 4 * MIB
    del other
    assert used() == base


@check("settings")
def numbers_hold_with_these_settings() -> None:
    base = torch.cuda.memory_allocated()
    parts = [take(mib) for mib in (3, 64, 130, 22, 0.5)]
    assert sum(part.numel() for part in parts) <= torch.cuda.memory_allocated() - base
    assert_consistent()
    found = blocks_of(torch.cuda.memory_snapshot())
    assert {part.data_ptr() for part in parts} <= found.keys()
    parts.clear()
    assert torch.cuda.memory_allocated() == base
    assert_consistent()


@check("settings", served=None)
def memory_ends_with_these_settings() -> None:
    kept = take(900)
    raised(torch.OutOfMemoryError, lambda: take(1500))
    assert take(700).numel() == 700 * MIB
    del kept
    torch.cuda.empty_cache()
    assert take(1600).numel() == 1600 * MIB
    assert_consistent()


if __name__ == "__main__":
    main()
