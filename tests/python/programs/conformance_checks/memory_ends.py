"""What happens when memory ends, and how it is had back."""

from __future__ import annotations

import functools

import torch
from conformance_checks.shared import assert_consistent
from conformance_rig import MIB, check, raised, stat, take, used


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
    synchronised = stat("num_sync_all_streams")
    torch.cuda.empty_cache()
    assert stat("num_sync_all_streams") == synchronised + 1  # whatever was given back
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
