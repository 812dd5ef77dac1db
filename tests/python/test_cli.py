"""The `ebbtide` command: it teaches, and says what is wrong in one line with exit code 2."""

from __future__ import annotations

import json
import sys

import pytest
from conftest import our_lines

pytest.importorskip("typer", reason="the command needs typer, which is not installed here")

CLI = ["-m", "ebbtide"]


@pytest.mark.parametrize(
    "arguments", [[], ["report"], ["dryrun"], ["doctor"], ["plan"], ["check"]]
)
def test_help_shows_an_example_or_what_it_does(run_python, arguments):
    done = run_python([*CLI, *arguments, "--help"])
    assert done.returncode == 0, done.stderr
    shown = " ".join(done.stdout.split())
    wanted = {
        "": "EBBTIDE=1 python train.py",
        "report": "ebbtide report run.ebb",
        "dryrun": "-- python train.py",
        "doctor": "Exits with 2",
        "plan": "ebbtide plan problem.csv -o plan.csv",
        "check": "ebbtide check problem.csv plan.csv",
    }
    assert wanted["".join(arguments)] in shown


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["nonsense"], "nonsense"),
        (["report"], "file"),
        (["report", "--what", "x"], "--what"),
        (["dryrun"], "command"),
        (["dryrun", "--", __file__], "test_cli.py: not a program by itself; write python"),
        (["dryrun", "--devcie", "h200", "--", "python"], "--devcie: no such option"),
    ],
)
def test_a_wrong_command_line_is_one_line(run_python, arguments, named):
    done = run_python([*CLI, *arguments])
    assert done.returncode == 2
    (line,) = our_lines(done.stderr)
    assert named in line and done.stderr.strip() == line


def test_report_passes_the_librarys_reason_on(run_python, fake_native, tmp_path):
    (tmp_path / "x.ebb").write_bytes(b"EBBTRACE")
    done = run_python(
        [*CLI, "report", str(tmp_path / "x.ebb")], EBBTIDE_NATIVE_DIR=str(fake_native)
    )
    assert done.returncode == 2
    assert done.stderr.strip() == "ebbtide error not a trace file"


def test_report_without_libraries_is_one_line(run_python, tmp_path):
    trace = tmp_path / "x.ebb"
    trace.write_bytes(b"EBBTRACE")
    done = run_python([*CLI, "report", str(trace)], EBBTIDE_NATIVE_DIR=str(tmp_path))
    assert done.returncode == 2
    assert "libebbtide.so is missing" in done.stderr and len(done.stderr.splitlines()) == 1


def test_report_of_a_trace_that_is_none_names_the_file(run_python, native, tmp_path):
    trace = tmp_path / "old.ebb"
    trace.write_bytes(b"EBBTIDE0" + bytes(100))
    for path in (trace, tmp_path / "missing.ebb"):
        done = run_python([*CLI, "report", str(path)], EBBTIDE_NATIVE_DIR=str(native))
        assert done.returncode == 2
        (line,) = our_lines(done.stderr)
        assert path.name in line and done.stderr.strip() == line


def test_dryrun_without_stand_ins_fails_aloud(run_python, fake_native):
    done = run_python(
        [*CLI, "dryrun", "--", sys.executable, "-c", "print('ran')"],
        EBBTIDE_NATIVE_DIR=str(fake_native),
    )
    assert done.returncode == 2 and "ran" not in done.stdout
    assert "stand-in" in done.stderr and len(done.stderr.splitlines()) == 1


def test_doctor_names_what_is_missing(run_python, tmp_path):
    done = run_python([*CLI, "doctor"], EBBTIDE_NATIVE_DIR=str(tmp_path), EBBTIDE="1")
    assert done.returncode == 2
    assert "libebbtide.so is missing" in " ".join(done.stdout.split())
    assert done.stderr.strip().startswith("ebbtide error not everything is in place")


def test_doctor_is_content_where_all_is_there(run_python, fake_native):
    done = run_python([*CLI, "doctor"], EBBTIDE_NATIVE_DIR=str(fake_native), EBBTIDE="1")
    assert done.returncode == 0, done.stdout
    assert " (on)" in done.stdout and "libebbtide_torch_cpu.so" in done.stdout


def test_report_reads_a_real_trace(run_python, native, tmp_path):
    trace = tmp_path / "run.ebb"
    code = """
        import torch
        layer = torch.nn.Linear(512, 512)
        for _ in range(6):
            layer(torch.ones(64, 512)).sum().backward()
    """
    environment = {"EBBTIDE_NATIVE_DIR": str(native)}
    done = run_python(
        code, EBBTIDE="1", EBBTIDE_DEVICES="cpu", EBBTIDE_TRACE=str(trace), EBBTIDE_REPORT="off",
        **environment,
    )
    assert done.returncode == 0 and our_lines(done.stderr) == [], done.stderr
    assert trace.stat().st_size > 0
    text = run_python([*CLI, "report", str(trace)], **environment)
    assert text.returncode == 0 and len(text.stdout.splitlines()) == 5, text.stderr
    parsed = json.loads(run_python([*CLI, "report", str(trace), "--json"], **environment).stdout)
    engine = parsed["engine"]
    assert engine["device"] == parsed["devices"][0]["device"] == -1
    assert engine["peak_live_bytes"] == parsed["devices"][0]["peak_live_bytes"]
    assert engine["peak_live_bytes"] >= 512 * 512 * 4  # the weight alone
    assert engine["allocations"] >= engine["frees"] > 0
    assert parsed["complete"] and not engine["truncated"]
