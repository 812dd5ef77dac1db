"""What torch's own CUDA tests (test_cuda.py, test_cuda_multigpu.py) ask of its allocator and the other groups do not,
written anew for a simulated device. judges/compare.py runs the originals."""

from __future__ import annotations

import contextlib
import json
import os
import random
import threading
from collections.abc import Iterator

import torch
from conformance_checks.memory_ends import told
from conformance_checks.shared import assert_consistent, numbers
from conformance_rig import MIB, check, raised, stat, take


@contextlib.contextmanager
def limited_to(mib: int) -> Iterator[None]:
    """So much more may be reserved than is now."""
    torch.cuda.empty_cache()
    allowed = torch.cuda.memory_reserved() + mib * MIB
    torch.cuda.set_per_process_memory_fraction(allowed / torch.cuda.mem_get_info()[1])
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()


@contextlib.contextmanager
def settings(text: str) -> Iterator[None]:
    """PYTORCH_CUDA_ALLOC_CONF as it is changed in a running program. Afterwards as it was: EBBTIDE=1 turns expandable
    segments on where nobody said anything, and without it they are off."""
    torch._C._accelerator_setAllocatorSettings(text)
    try:
        yield
    finally:
        torch._C._accelerator_setAllocatorSettings(f"expandable_segments:{os.environ.get('EBBTIDE') == '1'}")


@check("judged")
def tensors_that_come_and_go_at_random_keep_their_numbers() -> None:
    choose = random.Random(123)
    live: list[tuple[int, torch.Tensor]] = []
    for number in range(30):
        if live and (choose.random() < 0.45 or sum(tensor.nbytes for _, tensor in live) > 60 * MIB):
            expected, tensor = live.pop(choose.randrange(len(live)))
            assert bool((tensor == expected).all())
            continue
        count = choose.randrange(MIB // 2, MIB)
        live.append((number, torch.full((count,), number, dtype=torch.int32, device="cuda")))
        if choose.random() < 0.1:
            torch.cuda.empty_cache()
    for expected, tensor in live:
        assert bool((tensor == expected).all())


@check("judged")
def the_highest_follows_step_by_step_on_each_device() -> None:
    choose = random.Random(7)
    for device in range(2):
        torch.cuda.reset_peak_memory_stats(device)
    highest = [torch.cuda.memory_allocated(device) for device in range(2)]
    live: list[list[torch.Tensor]] = [[], []]
    for _ in range(24):
        device = choose.randrange(2)
        if live[device] and choose.random() < 0.4:
            live[device].pop(choose.randrange(len(live[device])))
        else:
            live[device].append(take(choose.randrange(2, 40), device=device))
        now = torch.cuda.memory_allocated(device)
        highest[device] = max(highest[device], now)
        assert torch.cuda.max_memory_allocated(device) == highest[device]
        assert torch.cuda.memory_reserved(device) >= now
    live[1].clear()
    torch.cuda.reset_peak_memory_stats(1)
    assert torch.cuda.max_memory_allocated(1) == torch.cuda.memory_allocated(1)
    assert torch.cuda.max_memory_allocated(0) == highest[0]


def the_one_who_allocates() -> torch.Tensor:
    return take(9)


def the_one_who_frees(tensors: list[torch.Tensor]) -> None:
    tensors.clear()


@check("judged")
def a_history_holds_the_stacks_that_were_asked_for() -> None:
    for context, allocates, frees in (("all", True, True), ("alloc", True, False), ("state", False, False), (None, False, False)):
        torch.cuda.memory._record_memory_history("all", context=context, stacks="python")
        try:
            tensors = [the_one_who_allocates()]
            the_one_who_frees(tensors)
            text = json.dumps(torch.cuda.memory._snapshot()["device_traces"][0])
        finally:
            torch.cuda.memory._record_memory_history(None)
        assert ("the_one_who_allocates" in text, "the_one_who_frees" in text) == (allocates, frees), context


@check("judged")
def a_history_carries_the_metadata_and_leaves_out_what_is_skipped() -> None:
    torch.cuda.memory._set_memory_metadata("of this test")
    torch.cuda.memory._record_memory_history(context="all", stacks="python", skip_actions=["free_requested"])
    try:
        kept, gone = take(6), take(4)
        del gone
        events = torch.cuda.memory._snapshot()["device_traces"][0]
    finally:
        torch.cuda.memory._record_memory_history(None)
        torch.cuda.memory._set_memory_metadata("")
    actions = {event["action"] for event in events}
    assert {"alloc", "free_completed"} <= actions and "free_requested" not in actions, actions
    assert {event["user_metadata"] for event in events} == {"of this test"}
    assert kept.numel() == 6 * MIB


@check("judged limits", served=None)
def what_is_shared_stays_as_it_is() -> None:
    tensor = numbers(3)
    assert tensor.share_memory_() is tensor and tensor.is_shared()
    tensor.untyped_storage()._share_cuda_()
    assert not torch.cuda.can_device_access_peer(0, 1)
    assert tensor[4].item() == 7 and tensor.to("cuda:1")[5].item() == 8
    assert_consistent(reset=True)


@check("judged limits", served=False)
def more_than_any_device_holds_is_refused_and_what_follows_works() -> None:
    failures, calls = stat("num_ooms"), len(told())
    text = raised(torch.OutOfMemoryError, lambda: torch.empty(1 << 61, dtype=torch.uint8, device="cuda"))
    assert "Tried to allocate more than 1EB memory" in text
    text = raised(torch.OutOfMemoryError, lambda: torch.empty(1 << 58, dtype=torch.uint8, device="cuda"))
    assert "Tried to allocate 268435456.00 GiB. GPU 0 has a total capacity of" in text
    assert (stat("num_ooms"), len(told())) == (failures + 1, calls + 1)
    assert told()[-1][:2] == (0, 1 << 58)
    assert bool((torch.zeros(1024, dtype=torch.int64, device="cuda").fill_(1) == 1).all())


@check("judged limits", served=None)
def what_did_not_fit_fits_once_the_other_is_gone() -> None:
    half = torch.cuda.get_device_properties(0).total_memory // 2 + MIB
    first = torch.empty(half, dtype=torch.int8, device="cuda")
    raised(torch.OutOfMemoryError, lambda: torch.empty(half, dtype=torch.int8, device="cuda"))
    del first
    assert torch.empty(half, dtype=torch.int8, device="cuda").numel() == half


@check("judged limits", served=None)
def a_fraction_is_what_was_set_and_none_that_makes_no_sense() -> None:
    total = torch.cuda.mem_get_info()[1]
    raised(TypeError, lambda: torch.cuda.set_per_process_memory_fraction(1))
    for wrong in (-0.1, 2.0):
        raised(ValueError, lambda fraction=wrong: torch.cuda.set_per_process_memory_fraction(fraction))
    try:
        for fraction in (0.0, 0.25, 1.0):
            torch.cuda.set_per_process_memory_fraction(fraction)
            assert torch.cuda.get_per_process_memory_fraction() == fraction
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(0.5)
        fits = torch.empty(int(total * 0.499) - torch.cuda.memory_reserved(), dtype=torch.int8, device="cuda")
        del fits
        torch.cuda.empty_cache()
        raised(torch.OutOfMemoryError, lambda: torch.empty(total // 2 + 1, dtype=torch.int8, device="cuda"))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


@check("judged limits", served=None)
def what_another_stream_uses_is_freed_before_memory_ends() -> None:
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        kept = take(160)
    for _ in range(30):
        tensor = take(160)
        with torch.cuda.stream(side):
            kept.copy_(tensor)
        tensor.record_stream(side)
        del tensor
    assert kept.numel() == 160 * MIB


@check("judged limits", served=False)
def raw_memory_counts_only_where_it_is_cached() -> None:
    def counted() -> int:
        before = stat("requested_bytes.all.allocated")
        address = torch._C._cuda_cudaCachingAllocator_raw_alloc(2 * MIB, torch.cuda.current_stream().cuda_stream)
        after = stat("requested_bytes.all.allocated")
        torch._C._cuda_cudaCachingAllocator_raw_delete(address)
        return after - before

    torch.cuda.caching_allocator_enable(False)
    try:
        assert counted() == 0
    finally:
        torch.cuda.caching_allocator_enable(True)
    assert counted() == 2 * MIB


@check("judged limits", served=False)
def pools_inside_pools_keep_their_own() -> None:
    torch.cuda.empty_cache()
    pools = [torch.cuda.MemPool() for _ in range(3)]
    kept = []
    with torch.cuda.use_mem_pool(pools[0]):
        kept.append(take(20))
        with torch.cuda.use_mem_pool(pools[1]):
            kept.append(take(20))
            with torch.cuda.use_mem_pool(pools[2]):
                kept.append(take(20))
            kept.append(take(20))
        kept.append(take(20))
    active = [sum(segment["active_size"] for segment in torch.cuda.memory_snapshot(pool.id)) for pool in pools]
    assert active == [40 * MIB, 40 * MIB, 20 * MIB], active
    assert len({pool.id for pool in pools}) == 3 and [pool.use_count() for pool in pools] == [1, 1, 1]


@check("judged limits", served=False)
def a_pool_that_does_not_split_has_a_segment_for_each_block() -> None:
    torch.cuda.empty_cache()
    pool = torch.cuda.MemPool(no_split=True)
    # An expandable segment is one for all blocks, torch's own allocator's as well.
    with settings("expandable_segments:False"), torch.cuda.use_mem_pool(pool):
        kept = [take(4) for _ in range(3)]
    segments = pool.snapshot()
    assert len(segments) == len(kept) and all(len(segment["blocks"]) == 1 for segment in segments)


@check("judged limits", served=None)
def a_pool_is_of_the_thread_that_uses_it() -> None:
    pool, found = torch.cuda.MemPool(), []
    used_in_pool, done = threading.Event(), threading.Event()

    def use_the_pool() -> None:
        with torch.cuda.use_mem_pool(pool):
            found.append(take(5))
            used_in_pool.set()
            done.wait()
            torch.cuda.empty_cache()

    def use_none() -> None:
        used_in_pool.wait()
        found.append(take(5))
        done.set()

    threads = [threading.Thread(target=function) for function in (use_the_pool, use_none)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    inside = {block["address"] for segment in pool.snapshot() for block in segment["blocks"] if block["state"] == "active_allocated"}
    assert [tensor.data_ptr() in inside for tensor in found] == [True, False]


@check("judged limits", served=None)
def a_pool_for_when_memory_ends_is_used_then_and_no_other() -> None:
    with limited_to(80), settings("expandable_segments:False"):  # an expandable segment has no spare blocks
        spare, other = torch.cuda.MemPool(use_on_oom=True), torch.cuda.MemPool()
        with torch.cuda.use_mem_pool(spare):
            in_spare = take(40)
        with torch.cuda.use_mem_pool(other):
            in_other = take(40)
        address = in_spare.data_ptr()
        raised(torch.OutOfMemoryError, lambda: take(40))
        del in_spare, in_other
        fallen_back = take(30)
        assert fallen_back.data_ptr() == address
        raised(torch.OutOfMemoryError, lambda: take(30))
        del fallen_back, spare, other


@check("judged limits", served=None)
def kinds_of_segments_may_change_while_memory_ends() -> None:
    for more in ("max_split_size_mb:40", "garbage_collection_threshold:0.5"):
        with limited_to(120), settings(more):
            kept = []
            for kind in (False, True, False):
                torch._C._accelerator_setAllocatorSettings(f"expandable_segments:{kind},{more}")
                kept.append(take(40))
            raised(torch.OutOfMemoryError, lambda: take(40))
            kept.clear()
            assert take(120).numel() == 120 * MIB
    assert_consistent(reset=True)
