"""bench/foresight_check.py: dry runs judged by real runs; here by dry runs on another device."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from dryrun_run import ROOT, simulated_environment

sys.path.insert(0, str(ROOT / "bench"))

import foresight_check  # noqa: E402
import prediction  # noqa: E402

REAL = {"tokens": 8192, "held_bytes": 1000, "live_bytes": 900, "step_seconds": 2.0}


@pytest.mark.parametrize(
    ("changed", "failing"),
    [
        ({}, []),
        ({"held_bytes": 1005, "live_bytes": 896, "step_seconds": 1.71}, []),
        ({"held_bytes": 1006}, ["peak held"]),
        ({"live_bytes": 894}, ["peak live"]),
        ({"step_seconds": 2.31}, ["step"]),
        ({"step_seconds": 1.69}, ["step"]),
    ],
)
def test_each_figure_has_its_bar(changed, failing):
    checks = prediction.compare(REAL, REAL | changed, None)
    assert [one.what for one in checks if one.passes is False] == failing
    assert prediction.verdict(checks) is not bool(failing)


@pytest.mark.parametrize(("seconds", "passes"), [(2.09, True), (2.11, False), (1.91, True), (1.89, False)])
def test_a_calibrated_step_has_a_narrower_bar(seconds, passes):
    checks = prediction.compare(REAL, REAL, REAL | {"step_seconds": seconds})
    assert [one.what for one in checks][-1] == "step, calibrated" and checks[-1].passes is passes


def test_short_steps_are_told_and_not_judged():
    real = REAL | {"tokens": 2048}
    checks = prediction.compare(real, real | {"step_seconds": 9.0}, real | {"step_seconds": 9.0})
    assert [one.passes for one in checks] == [True, True, None, None]
    assert checks[2].error == pytest.approx(3.5) and prediction.verdict(checks)


def test_nothing_to_compare_with_is_no_success():
    assert not prediction.verdict(prediction.compare(REAL | {"step_seconds": 0.0}, REAL, None))


def test_what_does_not_fit_is_skipped_and_what_fails_is_counted(monkeypatch):
    answers = {"small": "does not fit", None: "boom"}
    monkeypatch.setattr(
        foresight_check,
        "run",
        lambda row, file, timeout: {"error": answers[file]} if file in answers else dict(REAL),
    )
    row = foresight_check.ROWS["llama-8k"]
    rows = [
        foresight_check.measure(row, "small", None, None, 1),  # the dry run says so
        foresight_check.measure(row, "large", None, None, 1),  # the real run fails
        foresight_check.measure(row, "large", "large", "other", 1),
    ]
    assert [row.get("skipped") or row.get("error") for row in rows] == [
        "dry run: does not fit",
        "real run: boom",
        None,
    ]
    assert foresight_check.summary(rows) == {"passed": 1, "failed": 1, "skipped": 1}
    assert all(line.endswith("pass") for line in foresight_check.lines_of(rows[2]))


def test_dry_runs_are_compared_with_those_of_a_device_that_reaches_other_shares(tmp_path, monkeypatch):
    # GIVEN a device like an H200 but for its shares, in place of a real one
    simulated_environment(tmp_path)  # skips where there are no stand-ins
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "python_shim"))
    described = json.loads((ROOT / "dryrun" / "devices" / "h200.json").read_text())
    for share, value in (("matrix", 0.5), ("attention_forward", 0.25), ("memory", 0.8)):
        described["efficiency"][share]["value"] = value
    standin = tmp_path / "standin.json"
    standin.write_text(json.dumps(described))
    row = foresight_check.Scenario("small", (8192, 8192), model="plain", layers=1)
    report = foresight_check.compare_all([row], "h200", str(standin), 5)
    # THEN bytes agree, the time does not until the device file is calibrated
    (found,) = report["rows"]
    assert report["calibration"] == "measured" and "error" not in found and "skipped" not in found
    assert {one["what"]: one["passes"] for one in found["checks"]} == {
        "peak held": True,
        "peak live": True,
        "step": False,
        "step, calibrated": True,
    }
    assert report["failed"] == 1 and found["dry"]["held_bytes"] == found["real"]["held_bytes"] > 1 << 30


def test_an_unknown_row_is_one_line():
    command = [sys.executable, str(ROOT / "bench" / "foresight_check.py"), "--rows", "llama-9k"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert "--rows llama-9k: unknown row; allowed: llama-8k" in done.stderr
