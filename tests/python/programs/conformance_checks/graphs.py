"""CUDA graphs: captured, replayed, and given up, beside what an arena serves."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

import ebbtide
import torch
from conformance_checks.shared import assert_consistent, blocks_of, numbers
from conformance_rig import MIB, check, raised, stat, take

# torch's pinned-memory allocator goes on asking a graph whose capture failed, also after the graph's end (pytorch#180395,
# not in torch 2.11), and reads what is no more. So none of them ends.
_failed: list[torch.cuda.CUDAGraph] = []


def captured(work: Callable[[], object], **options: object) -> torch.cuda.CUDAGraph:
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph, **options):
            work()
    except Exception:
        _failed.append(graph)
        raise
    return graph


def segments_of(pool: tuple[int, int]) -> list[dict]:
    return [segment for segment in torch.cuda.memory_snapshot() if tuple(segment["segment_pool_id"]) == tuple(pool)]


@contextlib.contextmanager
def arena_is_left_alone() -> Iterator[None]:
    """Nothing within is served by the arena, where there is one."""
    def served() -> int:
        return ebbtide.stats("cuda:0").planned_allocations + ebbtide.stats("cuda:0").gap_allocations if ebbtide.is_active() else 0

    before = served()
    yield
    assert served() == before


@check("graphs")
def a_graph_computes_when_it_is_replayed() -> None:
    before, given = numbers(1), numbers(5)
    results: list[torch.Tensor] = []

    def work() -> None:
        doubled = given * 2
        results.append(doubled.add_(1))
        results.append(results[0] - given)

    with arena_is_left_alone():
        graph = captured(work)
    around = numbers(9)  # served again: the capture is over
    for start in (5, 40):
        given.copy_(torch.arange(start, start + MIB))
        graph.replay()
        assert results[0][:3].tolist() == [2 * start + 1, 2 * start + 3, 2 * start + 5]
        assert results[1][-1].item() == start + MIB
    assert (before[7].item(), around[7].item()) == (8, 16)


@check("graphs", served=False)
def blocks_of_a_graph_are_its_pools() -> None:
    torch.cuda.empty_cache()
    names = [f"{name}_bytes.large_pool.current" for name in ("allocated", "active", "requested")]
    before = [stat(name) for name in names]
    kept: list[torch.Tensor] = []

    def work() -> None:
        gone = take(24)
        kept.extend([take(16), take(8), gone[:2 * MIB].clone()])

    with arena_is_left_alone():
        graph = captured(work)
    assert [stat(name) for name in names] == [bytes_before + 26 * MIB for bytes_before in before]
    segments = segments_of(graph.pool())
    inside = blocks_of(segments)
    assert {tensor.data_ptr() for tensor in kept} <= set(inside)
    assert sum(block["requested_size"] for block in inside.values() if block["requested_size"] > MIB) == 26 * MIB
    # What the graph reuses stays reserved for it.
    torch.cuda.empty_cache()
    assert sum(segment["total_size"] for segment in segments_of(graph.pool())) >= 50 * MIB
    assert all(torch._C._has_Standard_Deleter(tensor.untyped_storage()._cdata) for tensor in kept)
    kept.clear()
    assert [stat(name) for name in names] == before
    pool = graph.pool()
    del graph
    torch.cuda.empty_cache()
    assert segments_of(pool) == []
    assert_consistent(reset=True)


@check("graphs", served=False)
def graphs_may_share_a_pool() -> None:
    pool = torch.cuda.graph_pool_handle()
    first: list[torch.Tensor] = []
    second: list[torch.Tensor] = []
    given = numbers(3, count=MIB // 8)
    one = captured(lambda: first.append(given + 1), pool=pool)
    two = captured(lambda: second.append(first[0] * 2), pool=pool)
    assert one.pool() == two.pool() == pool
    one.replay()
    two.replay()
    assert second[0][2].item() == 12
    assert {first[0].data_ptr(), second[0].data_ptr()} <= set(blocks_of(segments_of(pool)))


@check("graphs")
def a_round_goes_on_around_a_capture() -> None:
    """Blocks of the arena are alive, are freed and come again while and after a graph is captured."""
    kept, gone, late = take(40), [take(30)], [take(20)]
    inside: list[torch.Tensor] = []

    def work() -> None:
        gone.clear()
        inside.append(take(30))
        ebbtide.step()  # as an optimizer that is captured does
        late.clear()
        inside.append(take(20))

    with arena_is_left_alone():
        graph = captured(work)
    again, other = take(30), take(20)
    addresses = [tensor.data_ptr() for tensor in (kept, again, other)]
    assert not set(addresses) & {tensor.data_ptr() for tensor in inside}
    graph.replay()
    assert len(set(addresses)) == 3 and all(tensor.numel() for tensor in inside)


@check("graphs")
def what_a_capture_uses_may_be_freed_in_it() -> None:
    """The capture's stream used the block: its event would be the graph's, not the stream's."""
    used = numbers(2)
    results: list[torch.Tensor] = []

    def work() -> None:
        nonlocal used
        results.append(used[:MIB // 4] + 1)
        used.record_stream(torch.cuda.current_stream())
        del used

    graph = captured(work)
    reused = [numbers(7), take(8)]  # where it was: waits for nothing of the capture
    assert reused[0][1].item() == 8
    torch.cuda.synchronize()
    assert graph.pool() != (0, 0)


@check("graphs")
def streams_join_a_capture() -> None:
    side, results, given = torch.cuda.Stream(), [], numbers(3, count=MIB // 4)

    def work() -> None:
        here = given + 1
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            there = given * 3
        torch.cuda.current_stream().wait_stream(side)
        results.append(here + there)

    graph = captured(work)
    graph.replay()
    assert results[0][1].item() == 17
    with torch.cuda.stream(side):
        assert (given + 2)[0].item() == 5  # the side stream captures no more


@check("graphs")
def what_cannot_be_captured_harms_nothing() -> None:
    """Waiting for the device, an exception, and memory that ends: each within a capture."""
    def wait() -> None:
        take(8)
        torch.cuda.synchronize()

    def read() -> None:
        numbers(3).sum().item()

    def throw() -> None:
        take(8)
        raise KeyError("of the program's own")

    tensors = "allocated_bytes.large_pool.current"  # a graph that is kept has a few bytes of its own
    before = stat(tensors)
    for error, work in ((RuntimeError, wait), (RuntimeError, read), (KeyError, throw),
                        (torch.OutOfMemoryError, lambda: take(1 << 14))):
        with torch.cuda.stream(torch.cuda.default_stream()):  # torch leaves the capture's stream current
            raised(error, lambda work=work: captured(work))
        assert not torch.cuda.is_current_stream_capturing()
    assert stat(tensors) == before
    tensor = numbers(4)  # under a plan the arena's again: what failed is not waited for
    results: list[torch.Tensor] = []
    graph = captured(lambda: results.append(tensor + 1))
    graph.replay()
    assert results[0][5].item() == 10


@check("graphs")
def what_another_thread_asks_for_meanwhile_is_given() -> None:
    """What others ask for does not make a capture invalid, in the mode that lets them ask the driver."""
    first, results = take(25), []

    def work() -> None:
        results.append(take(10))
        thread = threading.Thread(target=lambda: results.append(take(25)))
        thread.start()
        thread.join()
        results.append(take(10))

    graph = captured(work, capture_error_mode="thread_local")
    assert len(results) == 3 and results[1].numel() == 25 * MIB
    graph.replay()
    del results[1]
    assert take(25).data_ptr() != first.data_ptr()


@check("graphs", served=None)
def layers_may_be_graphed_callables() -> None:
    torch.autograd.graph.set_warn_on_accumulate_grad_stream_mismatch(False)  # torch's own way of capturing them
    layer = torch.nn.Linear(512, 512, device="cuda")
    sample = torch.zeros(1024, 512, device="cuda", requires_grad=True)
    graphed = torch.cuda.make_graphed_callables(layer, (sample,))
    for _ in range(2):
        given = torch.zeros(1024, 512, device="cuda", requires_grad=True)
        graphed(given).sum().backward()
        assert given.grad is not None and layer.weight.grad is not None
        layer.weight.grad = None
