"""CUDA tensors and events go to another process and back, as torch.multiprocessing sends them.

    sharing.py        prints a line of JSON: what the arenas of both processes served

The same for torch's own allocator and for Ebbtide; on simulated devices, whose bytes really are shared.
"""

from __future__ import annotations

import ctypes
import gc
import json
from typing import Any

import ebbtide
import torch

MIB = 1 << 20
SECONDS = 100  # for the other process to answer
# Larger than the pieces that an arena consists of.
LARGE = 150 * MIB

_simulated = ctypes.CDLL(None)
_simulated.ebbtide_dryrun_used.restype = ctypes.c_int64


def used() -> int:
    return _simulated.ebbtide_dryrun_used(0)


def served() -> int:
    return ebbtide.stats("cuda:0").planned_allocations if ebbtide.is_active() else 0


def numbers(start: int, count: int = MIB) -> torch.Tensor:
    return torch.arange(start, start + count, device="cuda")


def large(first: int, last: int) -> torch.Tensor:
    """Computed at its ends only: a simulated device computes no more."""
    tensor = torch.empty(LARGE, dtype=torch.uint8, device="cuda")
    tensor[:4].fill_(first)
    tensor[-4:].fill_(last)
    return tensor


def rounds() -> None:
    """A program of its own, which comes to be served."""
    for start in range(5):
        ebbtide.step()
        first, second = numbers(start), numbers(start + 1)
        assert (first[1].item(), second[1].item()) == (start + 1, start + 2)
        del first, second
        ebbtide.wait_for_plans()


def receive(queue: Any, answers: Any) -> None:
    tensors = queue.get(timeout=SECONDS)
    event = queue.get(timeout=SECONDS)
    event.wait()
    torch.cuda.synchronize()
    in_arena, gone, small, whole, part = tensors
    answers.put([in_arena[5].item(), in_arena.sum().item(), gone[7].item(), small.tolist(), whole[0].item(), whole[-1].item(),
                 part[-1].item()])
    in_arena[0] = -1
    whole[-2:] = 99
    rounds()  # beside what is the other's
    assert in_arena[1].item() == 2 and whole[-1].item() == 99
    del tensors, in_arena, gone, small, whole, part
    gc.collect()
    torch.cuda.ipc_collect()
    answers.put([torch.cuda.memory_allocated(), served()])
    queue.get(timeout=SECONDS)


def main() -> None:
    rounds()
    ebbtide.step()
    base = torch.cuda.memory_allocated()
    context = torch.multiprocessing.get_context("spawn")
    queue, answers = context.Queue(), context.Queue()
    process = context.Process(target=receive, args=(queue, answers), daemon=True)
    process.start()
    before = 0
    for _ in range(5):  # until the sizes are planned
        ebbtide.step()
        in_arena = gone = whole = None
        before = served()
        in_arena, gone, whole = numbers(1), numbers(20), large(3, 4)
        ebbtide.wait_for_plans()
    by_arena = served() - before
    small = torch.arange(5, device="cuda")
    event = torch.cuda.Event(enable_timing=False, interprocess=True)
    event.record()
    queue.put([in_arena, gone, small, whole, whole[-50:]])
    queue.put(event)
    # What is sent lives until it has been received, whatever becomes of it here.
    address = gone.data_ptr()
    expected = [6, MIB * (MIB + 1) // 2, 27, [0, 1, 2, 3, 4], 3, 4, 4]
    del gone
    assert answers.get(timeout=SECONDS) == expected
    left, served_there = answers.get(timeout=SECONDS)
    assert left == 0, left
    assert (in_arena[0].item(), in_arena[1].item()) == (-1, 2)
    assert (whole[0].item(), whole[-1].item()) == (3, 99)
    torch.cuda.ipc_collect()
    assert torch.cuda.memory_allocated() == base + 8 * MIB + LARGE + 512
    ebbtide.step()
    again = numbers(50)
    assert again[3].item() == 53 and (not ebbtide.is_active() or address != in_arena.data_ptr())
    queue.put(None)
    process.join(SECONDS)
    assert process.exitcode == 0
    del in_arena, whole, small, again
    torch.cuda.empty_cache()
    assert torch.cuda.memory_allocated() == base
    assert torch.cuda.memory_reserved() == used()
    print(json.dumps({"here": by_arena, "there": served_there}))


if __name__ == "__main__":
    main()
