"""scripts/gpu-check behind its build: what it counts, writes down, and does when time is over. Without a GPU."""

from __future__ import annotations

import json
import math
import pathlib
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts" / "lib"))

import gpu_check  # noqa: E402
import gpu_figures  # noqa: E402
import gpu_result  # noqa: E402
import gpu_tests  # noqa: E402

DESCRIBED = {
    "date": "2026-01-02T03:04:05+00:00", "device": "NVIDIA H200", "commit": "a" * 40, "uncommitted_changes": False
}  # fmt: skip
PASSED = {"passed": 1, "failed": 0, "skipped": 0}


TESTS = """
import os, time, pytest
pytestmark = pytest.mark.gpu
@pytest.mark.parametrize("number", range(4))
def test_quick(number): pass
@pytest.mark.alone
def test_alone(): assert "PYTEST_XDIST_WORKER" not in os.environ
"""
OTHERS = """
def test_fails(): raise RuntimeError("x" * 3000 + "end")
def test_skips(): pytest.skip("needs two")
def test_needs(nothing): pass
@pytest.fixture
def late():
    yield
    raise ValueError("in its teardown")
def test_ends_badly(late): pass
"""
NEVER_ENDS = """
def test_never_ends():
    while True: time.sleep(0.1)
"""


def written(tmp_path, text) -> str:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_some.py").write_text(text)
    return str(tmp_path / "tests")


def test_every_outcome_is_counted_and_failures_have_their_words(tmp_path):
    found = gpu_tests.tests_on_gpu(tmp_path, math.inf, written(tmp_path, TESTS + OTHERS))
    assert (found["passed"], found["failed"], found["skipped"]) == (5, 3, 1)
    text = {failure["test"].split("::")[-1]: failure["text"] for failure in found["failures"]}
    assert set(text) == {"test_fails", "test_needs", "test_ends_badly"}
    assert len(text["test_fails"]) == 2000 and text["test_fails"].endswith("xend")
    assert "fixture 'nothing' not found" in text["test_needs"] and "ValueError: in its teardown" in text["test_ends_badly"]
    assert found["skips"] == [f"{found['skips'][0].split(':')[0]}::test_skips: Skipped: needs two"]


def test_where_time_is_over_what_ran_is_counted_and_what_hangs_is_named(tmp_path):
    began = time.monotonic()
    found = gpu_tests.tests_on_gpu(tmp_path, began + 8, written(tmp_path, TESTS + NEVER_ENDS))
    assert time.monotonic() - began < 12
    assert found["passed"] == 4 and found["failed"] == 3
    texts = {failure["test"].split("::")[-1]: failure["text"] for failure in found["failures"]}
    assert texts == {
        "test_never_ends": "it did not end",
        "tests marked gpu and not alone": "out of time",
        "tests marked gpu and alone": "out of time",
    }


def test_tests_that_cannot_be_read_are_a_failure(tmp_path):
    found = gpu_tests.tests_on_gpu(tmp_path, math.inf, written(tmp_path, "import nothing_of_that_name"))
    assert found["passed"] == 0 and found["failed"] > 0
    assert any("No module named 'nothing_of_that_name'" in failure["text"] for failure in found["failures"])


def test_no_cpp_test_needs_a_gpu():
    # scripts/gpu-check builds none of them.
    for file in (ROOT / "tests").rglob("CMakeLists.txt"):
        labels = [line for line in file.read_text().splitlines() if "LABELS" in line]
        assert not any("gpu" in line for line in labels), file


@pytest.fixture
def git(tmp_path, monkeypatch):
    """An empty folder in place of the checkout, and git in it."""
    root = tmp_path / "checkout"
    root.mkdir()
    monkeypatch.setattr(gpu_result, "ROOT", root)
    monkeypatch.setattr(gpu_result, "_DEVICE", "print('{\"device\": \"NVIDIA H200\"}')")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))

    def run(*arguments: str) -> None:
        name = ("-c", "user.name=a", "-c", "user.email=a@b.example")
        subprocess.run(["git", *name, *arguments], cwd=root, check=True, capture_output=True)

    run.root = root
    return run


def test_without_git_nobody_knows_of_changes(git, monkeypatch):
    monkeypatch.delenv("EBBTIDE_COMMIT", raising=False)
    described = gpu_result.describe()
    assert described["commit"] is None and described["uncommitted_changes"] is None
    monkeypatch.setenv("EBBTIDE_COMMIT", "abc")
    described = gpu_result.describe()
    assert described["commit"] == "abc" and described["uncommitted_changes"] is None


def test_a_result_of_its_own_is_no_change(git):
    git("init")
    git("commit", "--allow-empty", "-m", "first")
    (git.root / "bench" / "results").mkdir(parents=True)
    (git.root / "bench" / "results" / "one.json").write_text("{}")
    described = gpu_result.describe()
    assert len(described["commit"]) == 40 and described["uncommitted_changes"] is False
    (git.root / "bench" / "new.py").write_text("")
    assert gpu_result.describe()["uncommitted_changes"] is True


def read(result: gpu_result.Result) -> dict:
    return json.loads(result.path.read_text())


def test_parts_of_one_commit_come_together_and_another_commit_has_its_own_file(tmp_path):
    first = gpu_result.Result(DESCRIBED, tmp_path)
    first.begin("tests")
    assert read(first)["running"] == "tests" and "tests" not in read(first)
    first.put("tests", PASSED)
    again = gpu_result.Result(DESCRIBED, tmp_path)
    again.put("foresight", {"rows": [1]})
    again.put("foresight", {"rows": [1, float("inf")]})
    again.end()
    assert again.path == first.path
    assert (read(again)["tests"]["passed"], read(again)["foresight"]["rows"], read(again)["running"]) == (1, [1, None], None)
    others = [{"commit": "b" * 40}, {"uncommitted_changes": True}, {"commit": None}]
    paths = {gpu_result.Result(DESCRIBED | other, tmp_path).path for other in others} | {first.path}
    assert len(paths) == 4
    # Two runs of no known commit may be of any two.
    unknown = gpu_result.Result(DESCRIBED | {"commit": None}, tmp_path)
    unknown.end()
    assert gpu_result.Result(DESCRIBED | {"commit": None}, tmp_path).path != unknown.path


def run_check(tmp_path, monkeypatch, found_in, *arguments: str) -> tuple[bool, dict]:
    monkeypatch.setattr(gpu_check, "found_in", found_in)
    result = gpu_result.Result(DESCRIBED, tmp_path)
    passed = gpu_check.check(gpu_check.parse(["--build", str(tmp_path), *arguments]), result, math.inf)
    return passed, read(result)


@pytest.mark.parametrize(
    ("part", "changed", "success"),
    [
        ("tests", {}, True),
        ("tests", {"skipped": 3}, True),
        ("tests", {"failed": 1}, False),
        ("foresight", {"failed": 1}, False),
        ("foresight", {"passed": 0, "skipped": 1, "reason": "no simulated GPU"}, False),
        ("benchmarks", {"failed": 1}, False),
        ("benchmarks", {"passed": 0, "skipped": 7}, False),
    ],
)
def test_what_failed_or_did_not_run_is_no_success(tmp_path, monkeypatch, part, changed, success):
    passed, _ = run_check(tmp_path, monkeypatch, lambda one, *_: PASSED | (changed if one == part else {}))
    assert passed is success


def test_parts_run_alone(tmp_path, monkeypatch, capsys):
    _, found = run_check(tmp_path, monkeypatch, lambda *_: PASSED, "--only", "benchmarks,tests")
    assert set(gpu_check.PARTS) & set(found) == {"benchmarks", "tests"}
    with pytest.raises(SystemExit):
        gpu_check.parse(["--build", ".", "--only", "foresights"])
    assert "foresights: unknown part; allowed: tests,foresight,benchmarks" in capsys.readouterr().err


def test_a_fault_in_measuring_keeps_what_was_known_and_the_other_parts(tmp_path, monkeypatch):
    def found_in(part, options, device, end, tell):
        if part != "foresight":
            return PASSED
        tell({"rows": ["one"], **PASSED})
        raise ValueError("measured nothing")

    passed, found = run_check(tmp_path, monkeypatch, found_in)
    assert not passed and found["benchmarks"]["passed"] == 1
    assert found["foresight"]["rows"] == ["one"] and found["foresight"]["failed"] == 1
    assert "ValueError: measured nothing" in found["foresight"]["fault"]


def test_without_a_simulated_gpu_the_reason_names_what_was_lacking(tmp_path, monkeypatch):
    monkeypatch.setenv("EBBTIDE_NATIVE_DIR", str(tmp_path))
    (tmp_path / "CMakeCache.txt").write_text("EBBTIDE_JSON_INCLUDE:PATH=EBBTIDE_JSON_INCLUDE-NOTFOUND\n")
    found = gpu_figures.foresight(tmp_path, "NVIDIA H200", math.inf, lambda found: None)
    assert found["passed"] == 0 and "nlohmann/json.hpp was not found" in found["reason"]
    (tmp_path / "CMakeCache.txt").write_text("EBBTIDE_JSON_INCLUDE:PATH=/usr/include\n")
    found = gpu_figures.foresight(tmp_path, "NVIDIA H200", math.inf, lambda found: None)
    assert "no stand-in CUDA libraries" in found["reason"]


def test_a_gpu_without_a_device_file_is_named(native, tmp_path, monkeypatch):
    monkeypatch.setenv("EBBTIDE_NATIVE_DIR", str(native))
    monkeypatch.setattr("ebbtide._dryrun.native_folder", lambda: tmp_path)
    found = gpu_figures.foresight(tmp_path, "NVIDIA B300", math.inf, lambda found: None)
    assert "no device file is named 'NVIDIA B300'" in found["reason"]


def result_of(**changed) -> dict:
    return {"out_of_memory": "", "ebbtide": {"planned_bytes": 1}} | changed


@pytest.mark.parametrize(
    ("results", "outcome"),
    [
        ({"native": result_of(ebbtide=None), "ebbtide": result_of()}, "passed"),
        ({"native": result_of(ebbtide=None, out_of_memory="CUDA out of memory"), "ebbtide": result_of()}, "passed"),
        ({"ebbtide": result_of(out_of_memory="CUDA out of memory")}, "failed"),
        ({"ebbtide+plan": result_of(ebbtide=None)}, "failed"),
        ({"native": {"error": "exit 1"}, "ebbtide": {"error": "out of time"}}, "failed"),
        ({"native": result_of(ebbtide=None), "ebbtide": {"error": "out of time"}}, "skipped"),
    ],
)
def test_a_benchmark_fails_with_an_error_or_without_ebbtide(results, outcome):
    assert gpu_figures.verdict({"results": results}) == outcome


def test_long_rows_come_last_and_are_shorter_and_each_is_told(monkeypatch):
    rows, told = [], []

    def measure(row, options):
        rows.append((row.name, row.steps, row.settle_after))
        assert (options.real, options.timeout, options.end) == (True, 180, 77.0)
        return {"row": row.name, "peak_live_bytes": 0, "results": {"ebbtide": {"error": "out of time"}}}

    monkeypatch.setattr(gpu_figures.fragmentation, "measure", measure)
    found = gpu_figures.benchmarks(gpu_figures.ROWS, 77.0, lambda found: told.append(len(found["rows"])))
    assert rows == [
        ("fixed-8k", 20, 5), ("evaluation", 20, 5), ("late-zero-grad", 20, 5),
        ("random-batch", 8, 4), ("fixed-64k", 8, 4), ("random-128k", 8, 4), ("micro-batches", 8, 4),
    ]  # fmt: skip
    assert told == [1, 2, 3, 4, 5, 6, 7] and (found["passed"], found["skipped"]) == (0, 7)
