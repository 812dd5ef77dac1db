"""What the conformance checks are written with, and what runs them.

Each check is one iteration of a program. It runs ITERATIONS times, with an iteration's mark before and
the plans awaited after: under EBBTIDE=1 the first ones are observed and the last ones are served from
the arena, and what it asserts must hold in all of them, as it must without Ebbtide.
"""

from __future__ import annotations

import collections
import ctypes
import gc
import json
import sys
import traceback
from collections.abc import Callable

import ebbtide
import torch

MIB = 1 << 20
ITERATIONS = 6
DEVICE = 0

Check = Callable[[], None]
_groups: dict[str, list[tuple[Check, bool | None]]] = collections.defaultdict(list)
_simulated = ctypes.CDLL(None)
_simulated.ebbtide_dryrun_used.restype = ctypes.c_int64


def check(group: str, served: bool | None = True) -> Callable[[Check], Check]:
    """`served`: under a plan, large tensors of the check come from the arena. False: none may. None: a
    plan that the device cannot hold is given up, so it depends on the round."""

    def add(function: Check) -> Check:
        _groups[group].append((function, served))
        return function

    return add


def take(mib: float, device: int = DEVICE) -> torch.Tensor:
    return torch.empty(int(mib * MIB), dtype=torch.uint8, device=f"cuda:{device}")


def used(device: int = DEVICE) -> int:
    """Bytes that are taken from the simulated device, whoever took them."""
    return _simulated.ebbtide_dryrun_used(device)


def stat(name: str, device: int = DEVICE) -> int:
    return torch.cuda.memory_stats(device)[name]


def raised(error: type[BaseException], function: Callable[[], object]) -> str:
    """The text of the error that `function` must raise."""
    try:
        function()
    except error as caught:
        return str(caught)
    raise AssertionError(f"{error.__name__} was not raised")


def _served() -> int:
    if not ebbtide.is_active():
        return 0
    stats = ebbtide.stats(f"cuda:{DEVICE}")
    return stats.planned_allocations + stats.gap_allocations


def _run(function: Check) -> tuple[str, int]:
    """What went wrong, and how many requests the arena served in the last iteration."""
    before = 0
    for iteration in range(ITERATIONS):
        ebbtide.step()
        before = _served()
        try:
            function()
        except Exception:  # noqa: BLE001 - it is the result
            return f"in iteration {iteration}: {traceback.format_exc(limit=-3)}", 0
        if ebbtide.is_active():
            ebbtide.wait_for_plans()
    return "", _served() - before


def main() -> None:
    take(2)  # a parameter, as it were: the checks never begin with an empty device
    gc.disable()  # what a check frees is freed in it
    for function, served in [entry for group in sys.argv[1:] for entry in _groups[group]]:
        wrong, requests = _run(function)
        gc.collect()
        row = {"check": function.__name__, "wrong": wrong, "arena": requests, "served": served}
        print(json.dumps(row), flush=True)
