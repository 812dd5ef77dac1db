"""Under torch's own lock, in the middle of a request, a block of ours is freed, while other threads wait for that lock and
hold ours. All must come to an end, and the block be free.

    freeing_callback.py LIBRARY
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import time
from collections.abc import Callable

import ebbtide
import torch

MIB = 1 << 20
PATIENCE_S = 60
# For the others to run into the locks that are taken. Were it too short, less would be tried, and nothing fail.
MOMENT_S = 0.2


def take(mib: int) -> torch.Tensor:
    return torch.empty(mib * MIB, dtype=torch.uint8, device="cuda")


def until_planned() -> None:
    for _ in range(5):
        ebbtide.step()
        first, second = take(40), take(30)
        del first, second
        ebbtide.wait_for_plans()
    ebbtide.step()


def free_while(library: ctypes.CDLL, others: Callable[[], object]) -> None:
    until_planned()
    library.keep_block(40 * MIB)
    before = torch.cuda.memory_allocated()
    kept: list[object] = []
    threads: list[threading.Thread] = []

    def start(work: Callable[[], object]) -> None:
        threads.append(threading.Thread(target=lambda: kept.append(work()), daemon=True))
        threads[-1].start()

    def on_another_stream() -> torch.Tensor:
        with torch.cuda.stream(torch.cuda.Stream()):
            return take(500)

    library.stop_at_next_callback()
    start(on_another_stream)
    library.wait_for_callback()
    start(others)
    time.sleep(MOMENT_S)
    library.free_kept()
    for thread in threads:
        thread.join(PATIENCE_S)
    if any(thread.is_alive() for thread in threads):
        print("a lock was waited for under torch's", file=sys.stderr, flush=True)
        os._exit(1)  # the interpreter would wait for them
    kept.clear()
    assert torch.cuda.memory_allocated() == before - 40 * MIB
    until_planned()  # what the others took was not as planned: the next rounds are on trial
    served = ebbtide.stats("cuda:0").planned_allocations
    take(40)
    assert ebbtide.stats("cuda:0").planned_allocations == served + 1
    torch.cuda.empty_cache()


def main() -> None:
    library = ctypes.CDLL(sys.argv[1])
    library.keep_block.argtypes = [ctypes.c_size_t]
    parameter = take(2)
    free_while(library, library.ask_for_statistics)  # takes the statistics' lock, then torch's
    free_while(library, lambda: [take(40), take(300)])  # the arena grows: the engine's growth, the statistics', torch's
    assert parameter.numel() == 2 * MIB


main()
