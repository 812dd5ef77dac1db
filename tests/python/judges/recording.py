"""A pytest plugin that writes down each test's outcome, and runs each several times where an arena is to be planned.

    JUDGE_LOG=FILE JUDGE_ROUNDS=5 python -m pytest -p recording ...

A line of JSON in FILE when a test begins and one when it ended, so that whoever started this process knows what it was
in when it died. With more than one round each run of the test is an iteration of a training program: a mark before it,
and the plans awaited after it. What counts is the last round, or the first that fails.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
from typing import Any

import pytest
from _pytest.runner import runtestprotocol

_rounds = int(os.environ.get("JUDGE_ROUNDS", "1"))
_served = 0  # requests that the arena served so far, on the first device


def _write(**line: Any) -> None:
    with open(os.environ["JUDGE_LOG"], "a") as log:
        log.write(json.dumps(line) + "\n")


def _outcome(reports: list[pytest.TestReport]) -> tuple[str, str]:
    """passed, failed or skipped; and why not passed."""
    for outcome in ("failed", "skipped"):
        for report in reports:
            if report.outcome == outcome:
                return outcome, str(report.longrepr)[-1500:]
    return "passed", ""


def _count_served() -> int:
    """Requests that the arena served since the last call."""
    global _served
    import ebbtide

    if not ebbtide.is_active():
        return 0
    stats = ebbtide.stats("cuda:0")
    before, _served = _served, stats.planned_allocations + stats.gap_allocations
    return _served - before


@functools.cache
def _take_home() -> None:
    """The arena serves one stream, the first that asks: the default one, whatever the first test does."""
    import ebbtide
    import torch

    ebbtide.step()
    torch.empty(4 << 20, dtype=torch.uint8, device="cuda")


def _run(item: pytest.Item, nextitem: pytest.Item | None) -> list[pytest.TestReport]:
    import ebbtide

    _take_home()
    for _ in range(_rounds):
        if hasattr(item, "_request"):
            item._initrequest()  # a second run needs fresh fixtures
        ebbtide.step()
        _count_served()
        reports = runtestprotocol(item, nextitem=item, log=False)
        if _outcome(reports)[0] != "passed":
            break
        if ebbtide.is_active():
            ebbtide.wait_for_plans()
    item.session._setupstate.teardown_exact(nextitem)
    return reports


def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool:
    _write(begins=item.nodeid)
    if _rounds > 1:
        reports, served = _run(item, nextitem), _count_served()
    else:
        reports, served = runtestprotocol(item, nextitem=nextitem, log=False), 0
    outcome, why = _outcome(reports)
    _write(ended=item.nodeid, outcome=outcome, why=why, served=served)
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    if outcome == "failed":
        item.session.shouldstop = "what a failed test left behind is not for the next one"
    return True


def pytest_configure() -> None:
    """PyTorch's test classes give each test a stream of its own: repeated tests stay on the default one."""
    if _rounds > 1:
        from torch.testing._internal import common_utils

        common_utils.TestCase.enforceNonDefaultStream = lambda _self: contextlib.nullcontext()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out what an earlier process ran; JUDGE_DONE names a file with a test a line."""
    path = os.environ.get("JUDGE_DONE")
    if path is None:
        return
    with open(path) as file:
        done = set(file.read().splitlines())
    config.hook.pytest_deselected(items=[item for item in items if item.nodeid in done])
    items[:] = [item for item in items if item.nodeid not in done]
