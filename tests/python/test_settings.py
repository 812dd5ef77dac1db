"""Settings and files that are wrong: one line that names them and what is allowed, and training
goes on without Ebbtide, or ends with EBBTIDE_STRICT=1. With the real libraries."""

from __future__ import annotations

import pytest
from conftest import our_lines

TRAIN = """
    import torch, ebbtide
    torch.manual_seed(1)
    layer = torch.nn.Linear(256, 256)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    for _ in range(12):
        loss = layer(torch.ones(64, 256)).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        ebbtide.wait_for_plans()
    planned = ebbtide.stats("cpu").planned_bytes if ebbtide.is_active() else -1
    print("trained", loss.item().hex(), planned)
"""

WRONG = [
    ({"EBBTIDE": "maybe"}, ["EBBTIDE=maybe", "0", "1", "observe"]),
    ({"EBBTIDE": "1", "EBBTIDE_LOG": "loud"}, ["EBBTIDE_LOG=loud", "warning", "info", "debug"]),
    ({"EBBTIDE": "1", "EBBTIDE_REPORT": "fax"}, ["EBBTIDE_REPORT=fax", "stderr", "off"]),
    ({"EBBTIDE": "1", "EBBTIDE_STRICT": "very"}, ["EBBTIDE_STRICT=very", "0", "1"]),
]


def run(run_python, native, **settings):
    defaults = {"EBBTIDE_DEVICES": "cpu", "EBBTIDE_REPORT": "off"}
    return run_python(TRAIN, EBBTIDE_NATIVE_DIR=str(native), **{**defaults, **settings})


@pytest.mark.parametrize(("settings", "named"), WRONG)
def test_a_wrong_setting_is_named_and_training_goes_on(run_python, native, settings, named):
    done = run(run_python, native, **settings)
    assert done.returncode == 0 and "trained" in done.stdout, done.stderr
    assert done.stdout.split()[-1] == "-1", "it was active all the same"
    (line,) = our_lines(done.stderr)
    assert all(word in line for word in named), line
    assert done.stderr.strip() == line


def test_a_wrong_setting_ends_a_strict_process(run_python, native):
    done = run(run_python, native, EBBTIDE="maybe", EBBTIDE_STRICT="1")
    assert done.returncode == 2 and "trained" not in done.stdout
    (line,) = our_lines(done.stderr)
    assert "EBBTIDE=maybe" in line and done.stderr.strip() == line


@pytest.mark.parametrize("content", [b"", b"no plan at all", bytes(4096)])
def test_an_unreadable_plan_is_named_and_training_goes_on(run_python, native, tmp_path, content):
    plan = tmp_path / "old.plan"
    plan.write_bytes(content)
    plain = run(run_python, native, EBBTIDE="0")
    done = run(run_python, native, EBBTIDE="1", EBBTIDE_PLAN=str(plan))
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[:2] == plain.stdout.split()[:2]
    (line,) = our_lines(done.stderr)
    assert "EBBTIDE_PLAN" in line or str(plan) in line
    assert plan.read_bytes() == content, "a file that is not ours was overwritten"


def test_an_unreadable_plan_ends_a_strict_process(run_python, native, tmp_path):
    plan = tmp_path / "old.plan"
    plan.write_bytes(b"no plan at all")
    done = run(run_python, native, EBBTIDE="1", EBBTIDE_STRICT="1", EBBTIDE_PLAN=str(plan))
    assert done.returncode == 2 and "trained" not in done.stdout
    assert len(our_lines(done.stderr)) == 1


def test_a_saved_plan_serves_the_next_run_from_its_first_iteration(run_python, native, tmp_path):
    plan = tmp_path / "mine.plan"
    plain = run(run_python, native, EBBTIDE="0")
    first = run(run_python, native, EBBTIDE="1", EBBTIDE_PLAN=str(plan))
    assert first.returncode == 0 and plan.stat().st_size > 0, first.stderr
    second = run(run_python, native, EBBTIDE="1", EBBTIDE_PLAN=str(plan))
    assert second.returncode == 0 and our_lines(second.stderr) == [], second.stderr
    losses = {done.stdout.split()[1] for done in (plain, first, second)}
    assert len(losses) == 1
    assert int(second.stdout.split()[-1]) > int(first.stdout.split()[-1]) > 0


def test_the_report_at_exit_is_five_lines(run_python, native):
    done = run(run_python, native, EBBTIDE="1", EBBTIDE_REPORT="stderr")
    assert done.returncode == 0
    assert len(done.stderr.strip().splitlines()) == 5, done.stderr
    for word in ("peak live", "peak reserved", "served by the plan", "divergences", "saved"):
        assert word in done.stderr


def test_the_report_goes_to_a_file_that_is_named(run_python, native, tmp_path):
    import json

    text, parsed = tmp_path / "report.txt", tmp_path / "report.json"
    for path in (text, parsed):
        done = run(run_python, native, EBBTIDE="1", EBBTIDE_REPORT=str(path))
        assert done.returncode == 0 and done.stderr.strip() == "", done.stderr
    assert "peak live" in text.read_text()
    assert "peak_live_bytes" in json.dumps(json.loads(parsed.read_text()))
