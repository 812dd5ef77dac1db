"""A thread stands still under torch's own lock, in the middle of taking a segment, while others begin the first
iteration (which asks torch what is alive, with the engine's lock held), free and allocate. All must come to an end.

    lock_order.py LIBRARY
"""

from __future__ import annotations

import ctypes
import sys
import threading
import time
from collections.abc import Callable

import ebbtide
import torch

MIB = 1 << 20
PATIENCE_S = 60
# For the others to run into the locks that are taken. Were it too short, less would be tried, and nothing fail.
MOMENT_S = 0.3


def take(mib: int) -> torch.Tensor:
    return torch.empty(mib * MIB, dtype=torch.uint8, device="cuda")


def main() -> None:
    tracker = ctypes.CDLL(sys.argv[1])
    parameter, freed = take(30), [take(40)]
    tracker.attach_segment_tracker()
    threads: list[threading.Thread] = []

    def start(work: Callable[[], object]) -> None:
        threads.append(threading.Thread(target=work, daemon=True))
        threads[-1].start()

    tracker.stop_at_next_change()
    start(lambda: take(500))
    tracker.wait_until_stopped()
    start(ebbtide.step)
    time.sleep(MOMENT_S)
    start(freed.clear)
    start(lambda: take(20))
    time.sleep(MOMENT_S)
    tracker.let_go()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert not any(thread.is_alive() for thread in threads), "locks were taken in two orders"
    for _ in range(4):
        ebbtide.step()
        activation = take(50)
        del activation
        ebbtide.wait_for_plans()
    assert ebbtide.stats("cuda:0").planned_allocations > 0
    assert torch.cuda.memory_allocated() == parameter.nbytes


main()
