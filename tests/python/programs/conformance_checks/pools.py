"""Pools, storages, graphs, and memory without a cache."""

from __future__ import annotations

import os

import torch
from conformance_checks.shared import assert_consistent, blocks_of, numbers
from conformance_rig import MIB, check, raised, take, used


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


@check("pools")
def a_tensor_may_be_freed_while_another_device_is_current() -> None:
    before = [torch.cuda.memory_allocated(device) for device in (0, 1)]
    tensor = take(20)
    torch.cuda.set_device(1)
    try:
        del tensor
        other = take(10, device=1)
        assert [torch.cuda.memory_allocated(device) for device in (0, 1)] == [before[0], before[1] + 10 * MIB]
        tensor = take(25)
    finally:
        torch.cuda.set_device(0)
    assert tensor.device.index == 0 and torch.cuda.memory_allocated(0) == before[0] + 25 * MIB
    del other, tensor


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
