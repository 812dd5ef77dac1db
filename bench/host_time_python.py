"""The rounds of host_time.py through Python's own torch.empty. Started by it, with the library that it built of
host_time.cpp; prints the seconds of every round, a line for each: <torch's> <Ebbtide's> <nothing's>.

    host_time_python.py LIBRARY ADAPTOR LIVE_BLOCKS REQUESTS ROUNDS MARKS
"""

from __future__ import annotations

import ctypes
import sys
import time

import torch

WARMUPS = 40  # as host_time.cpp's
TORCHS, OURS, NOTHING = range(3)


def schedule(sizes: list[int], live: int, requests: int) -> list[tuple[int, int]]:
    """(slot, bytes) of every request: as host_time.cpp's run_round."""
    steps, oldest = [], 0
    for i in range(requests):
        is_newest = i % 2 == 1 and i > live
        slot = (oldest + live - 1) % live if is_newest else oldest
        oldest += not is_newest
        oldest %= live
        steps.append((slot, sizes[i % len(sizes)]))
    return steps


def run_round(steps: list[tuple[int, int]], live: int) -> float:
    blocks: list[torch.Tensor | None] = [None] * live
    empty, kind, device = torch.empty, torch.uint8, torch.device("cuda")
    begin = time.perf_counter()
    for slot, size in steps:
        blocks[slot] = None
        blocks[slot] = empty(size, dtype=kind, device=device)
    return time.perf_counter() - begin


def main() -> None:
    library = ctypes.CDLL(sys.argv[1])
    library.host_time_install(sys.argv[2].encode())
    live, requests, rounds, has_marks = map(int, sys.argv[3:])
    torch.cuda.init()
    sizes = (ctypes.c_size_t * library.host_time_sizes(None))()
    library.host_time_sizes(sizes)
    steps = schedule(list(sizes), live, requests)

    def turn(which: int) -> float:
        library.host_time_use(which)
        seconds = run_round(steps, live)
        if has_marks and which == OURS:
            library.host_time_step()
        return seconds

    if has_marks:
        library.host_time_step()
    for _ in range(WARMUPS):
        turn(TORCHS)
        turn(OURS)
        library.host_time_wait_for_plans()
    for _ in range(rounds):
        print(*(f"{turn(which):.9f}" for which in (TORCHS, OURS, NOTHING)))
    library.host_time_use(TORCHS)


main()
