"""bench/foresight_check.py: dry runs judged by real runs; here by dry runs on another device."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time

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
        lambda row, file, end: {"error": answers[file]} if file in answers else dict(REAL),
    )
    row = foresight_check.ROWS["llama-8k"]
    rows = [
        foresight_check.measure(row, "small", None, None, math.inf),  # the dry run says so
        foresight_check.measure(row, "large", None, None, math.inf),  # the real run fails
        foresight_check.measure(row, "large", "large", "other", math.inf),
    ]
    assert [row.get("skipped") or row.get("error") for row in rows] == [
        "dry run: does not fit",
        "real run: boom",
        None,
    ]
    assert foresight_check.summary(rows) == {"passed": 1, "failed": 1, "skipped": 1}
    assert all(line.endswith("pass") for line in foresight_check.lines_of(rows[2]))


@pytest.fixture
def python(monkeypatch):
    """Runs code where foresight_check would start a program: call(code)."""
    return lambda code, end=math.inf: foresight_check.call([sys.executable, "-c", code], end)


def test_why_a_run_failed_is_what_it_raised_and_the_end_of_what_it_said_is_kept(python):
    code = """
import sys
for number in range(40): print("line", number, file=sys.stderr)
print("ebbtide warning something\\nCompile with `TORCH_USE_CUDA_DSA` to enable assertions.", file=sys.stderr)
raise RuntimeError("CUDA error: device lost\\nCompile with `TORCH_USE_CUDA_DSA` to enable device-side assertions.")
"""
    found = python(code)
    assert found.error == "exit 1: RuntimeError: CUDA error: device lost"
    assert found.warnings == ["ebbtide warning something"]
    assert len(found.stderr.splitlines()) == 30 and found.stderr.splitlines()[-1].startswith("Compile with")
    assert python("raise SystemExit('no such thing')").error == "exit 1: no such thing"
    assert python("class OutOfMemoryError(Exception): pass\nraise OutOfMemoryError('x')").error == "does not fit"


def test_nothing_goes_on_after_the_end(python):
    now = time.monotonic()
    late = python("import sys, time; print('begun', file=sys.stderr, flush=True); time.sleep(60)", now + 2)
    assert (late.error, late.stderr) == ("out of time", "begun")
    assert python("print(1)", now).error == "out of time" and time.monotonic() < now + 20
    row = foresight_check.measure(foresight_check.ROWS["llama-8k"], "h200", None, None, now)
    assert foresight_check.summary([row]) == {"passed": 0, "failed": 0, "skipped": 1}


def test_offloads_row_has_a_budget_of_its_own_and_must_swap(monkeypatch):
    import ebbtide
    import foresight_run

    asked = {}

    def offload(model, **options):
        asked.update(options)
        raise KeyboardInterrupt

    monkeypatch.setattr(ebbtide, "offload", offload)
    monkeypatch.setattr(foresight_run.models, "make_model", lambda *_, **__: None)
    with pytest.raises(KeyboardInterrupt):
        foresight_run.train(foresight_check.ROWS["llama-64k-offload"])
    assert asked == {"alpha": 0.0, "host": "8GiB", "strict": True}


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
    told = []
    report = foresight_check.compare_all(
        [row], "h200", str(standin), tell=lambda report: told.append(len(report["rows"]))
    )
    # THEN bytes agree, the time does not until the device file is calibrated
    (found,) = report["rows"]
    assert report["calibration"] == "measured" and "error" not in found and "skipped" not in found
    assert {one["what"]: one["passes"] for one in found["checks"]} == {
        "peak held": True,
        "peak live": True,
        "step": False,
        "step, calibrated": True,
    }
    # AND the calibrated file and the seconds of each step are kept
    assert report["device_file"]["efficiency"]["matrix"]["value"] == pytest.approx(0.5, rel=0.002)
    assert len(found["real"]["seconds"]) == 5 and told == [0, 1]
    assert report["failed"] == 1 and found["dry"]["held_bytes"] == found["real"]["held_bytes"] > 1 << 30


def test_an_unknown_row_is_one_line():
    command = [sys.executable, str(ROOT / "bench" / "foresight_check.py"), "--rows", "llama-9k"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert "--rows llama-9k: unknown row; allowed: llama-8k" in done.stderr
