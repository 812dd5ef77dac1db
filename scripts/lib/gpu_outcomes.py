"""A plugin of pytest: writes a line of JSON when a test begins and when it ends, so that nothing is lost where pytest is."""

from __future__ import annotations

import json
import os

import pytest

FILE = "EBBTIDE_GPU_OUTCOMES"  # in the environment: where they go
_WORDS = 2000  # characters of a failure, from its end


def _write(test: str, outcome: str, text: str = "") -> None:
    if "PYTEST_XDIST_WORKER" not in os.environ:  # what workers tell comes together in the process that started them
        with open(os.environ[FILE], "a") as file:
            file.write(json.dumps({"test": test, "outcome": outcome, "text": text.strip()[-_WORDS:]}) + "\n")


def pytest_runtest_logstart(nodeid: str) -> None:
    _write(nodeid, "begun")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.failed:
        _write(report.nodeid, "failed", report.longreprtext)
    elif report.skipped:
        _write(report.nodeid, "skipped", report.longrepr[2] if isinstance(report.longrepr, tuple) else "")
    elif report.when == "teardown":
        _write(report.nodeid, "passed")


def pytest_collectreport(report: pytest.CollectReport) -> None:
    if report.failed:
        _write(report.nodeid, "failed", report.longreprtext)
