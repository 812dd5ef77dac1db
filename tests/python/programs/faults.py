"""The n-th driver call of a training iteration fails, for every n, under a plan.

    faults.py KINDS      KINDS: as ebbtide_dryrun_fail has them; prints JSON: calls, errors by type, what was wrong
"""

from __future__ import annotations

import collections
import ctypes
import gc
import json
import sys

import ebbtide
import torch

WARM_UP = 6
MIB = 1 << 20
simulated = ctypes.CDLL(None)
simulated.ebbtide_dryrun_fallible_calls.restype = ctypes.c_int64
simulated.ebbtide_dryrun_fail.argtypes = [ctypes.c_int64, ctypes.c_uint]


PINNING = 8


def iteration(model: torch.nn.Module, optimizer: torch.optim.Optimizer, side: torch.cuda.Stream, pins: bool) -> None:
    batch = torch.ones(512, 1024)
    if pins:  # torch itself ends the process when an event fails as pinned memory is freed
        torch._C._host_emptyCache()  # so that memory is pinned in every iteration
        batch = batch.pin_memory()
    batch = batch.to("cuda", non_blocking=pins)
    hidden = model(batch)
    used_twice = torch.arange(MIB, device="cuda")
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        doubled = used_twice * 2
        used_twice.record_stream(side)
    del used_twice
    reused = torch.arange(5, MIB + 5, device="cuda")
    torch.cuda.current_stream().wait_stream(side)
    assert doubled[7].item() == 14 and reused[7].item() == 12
    hidden.sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    assert hidden.cpu().shape == (512, 1024)


def main() -> None:
    kinds = int(sys.argv[1])
    model = torch.nn.Sequential(torch.nn.Linear(1024, 1024), torch.nn.GELU(), torch.nn.Linear(1024, 1024)).cuda()
    optimizer = torch.optim.AdamW(model.parameters())
    side = torch.cuda.Stream()

    def step() -> None:
        ebbtide.step()
        iteration(model, optimizer, side, pins=kinds == PINNING)

    for _ in range(WARM_UP):
        step()
        ebbtide.wait_for_plans()
    gc.collect()
    base = torch.cuda.memory_allocated()
    simulated.ebbtide_dryrun_fail(0, kinds)
    torch.cuda.empty_cache()  # so that memory is asked for in every iteration
    step()
    calls = simulated.ebbtide_dryrun_fallible_calls()
    errors: collections.Counter[str] = collections.Counter()
    wrong = []
    for nth in range(1, calls + 1):
        torch.cuda.empty_cache()
        simulated.ebbtide_dryrun_fail(nth, kinds)
        try:
            step()
            errors["absorbed"] += 1
        except Exception as error:  # noqa: BLE001 - its type is the result
            errors[type(error).__name__] += 1
        simulated.ebbtide_dryrun_fail(0, kinds)
        optimizer.zero_grad()
        gc.collect()
        torch.cuda.synchronize()
        step()
        if torch.cuda.memory_allocated() != base:
            wrong.append(f"call {nth}: {torch.cuda.memory_allocated() - base} bytes leaked")
    stats = ebbtide.stats("cuda:0") if ebbtide.is_active() else None
    arena = stats.planned_allocations + stats.gap_allocations if stats else 0
    print(json.dumps({"calls": calls, "errors": errors, "wrong": wrong, "arena": arena}))


if __name__ == "__main__":
    main()
