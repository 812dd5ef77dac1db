"""Streams, events and threads."""

from __future__ import annotations

import threading

import torch
from conformance_checks.shared import assert_consistent, numbers
from conformance_rig import MIB, check, take


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


@check("streams", served=False)
def a_stream_is_heeded_from_the_next_request_on() -> None:
    side, before = torch.cuda.Stream(), torch.cuda.current_stream()

    def work() -> None:
        with torch.cuda.stream(side):
            take(21)
        torch.cuda.set_stream(side)
        take(22)

    torch.cuda.set_stream(side)
    take(23)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    with torch.cuda.stream(torch.cuda.Stream()):
        take(24)
    take(25)
    torch.cuda.set_stream(before)


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


@check("streams")
def a_thread_may_end_before_its_tensors() -> None:
    base = torch.cuda.memory_allocated()
    kept: list[torch.Tensor] = []
    thread = threading.Thread(target=lambda: kept.extend([take(50), take(60)]))
    thread.start()
    thread.join()
    assert torch.cuda.memory_allocated() == base + 110 * MIB
    kept.clear()
    assert torch.cuda.memory_allocated() == base


@check("streams")
def other_threads_may_empty_the_cache_meanwhile() -> None:
    first = numbers(3)
    threads = [threading.Thread(target=torch.cuda.empty_cache) for _ in range(4)]
    for thread in threads:
        thread.start()
    others = [numbers(start) for start in (10, 20, 30)]
    for thread in threads:
        thread.join()
    assert [tensor[5].item() for tensor in (first, *others)] == [8, 15, 25, 35]
    assert_consistent(reset=True)
