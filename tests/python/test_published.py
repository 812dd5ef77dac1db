"""bench/published.py: its rows, its arithmetic, and what it makes of a program's output; no dry run."""

from __future__ import annotations

import json
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "bench"))

import dry_run  # noqa: E402
import published  # noqa: E402
from published_rows import GIB, ROWS, SOURCES, VARIANTS, Row  # noqa: E402


def row(**changes) -> Row:
    return Row("a program", "raschka", "a100-40g", ("published_gpt.py",), **changes)


def test_every_row_has_a_source_a_device_a_program_and_one_published_time():
    files = {path.stem for path in (ROOT / "dryrun" / "devices").glob("*.json")}
    assert len({(one.name, one.source) for one in ROWS}) == len(ROWS)
    for one in ROWS:
        assert one.source in SOURCES and one.group in ("found", "other")
        assert one.device in files or VARIANTS[one.device][0] in files
        assert (ROOT / "bench" / one.program[0]).is_file()
        assert (one.seconds > 0) != (one.tokens_per_second > 0)
    assert {one.source for one in ROWS} == set(SOURCES)


def test_tokens_a_second_become_seconds_and_ratios_are_predicted_over_published():
    printed = {"seconds": 0.9, "tokens": 8192, "reserved": 11 * GIB}
    found = published.compared(row(tokens_per_second=8192, reserved_gib=10), printed)
    assert found["published_seconds"] == 1 and found["time_ratio"] == pytest.approx(0.9)
    assert found["gib"] == 11 and found["memory_ratio"] == pytest.approx(1.1)
    found = published.compared(row(seconds=0.6), printed)
    assert found["time_ratio"] == pytest.approx(1.5) and "memory_ratio" not in found


def test_a_row_without_published_memory_and_one_that_failed_have_as_many_cells():
    found = published.compared(row(seconds=0.6), {"seconds": 0.9, "tokens": 1, "reserved": GIB})
    assert published.cells(row(seconds=0.6), found)[3:] == ["600.0 ms", "900.0 ms", "1.50", "-", "1.00", "-"]
    assert len(published.cells(row(), {"error": "out of memory"})) == 9


def test_times_are_written_in_milliseconds_up_to_two_seconds():
    assert [published.written(seconds) for seconds in (0.0426, 1.009, 24.749)] == ["42.6 ms", "1009.0 ms", "24.75 s"]


def test_the_summary_counts_what_is_within_the_bar_and_takes_the_geometric_mean():
    assert published.summary("all", [0.5, 2.0, 0.9], 0.15) == "all: 1 of 3 within 15%, 0.50 to 2.00, geometric mean 0.97"
    assert published.summary("all", [], 0.15) == "all: none"


def test_groups_are_summed_up_apart_and_rows_that_failed_are_left_out():
    rows = [row(group="found"), row(), row()]
    lines = published.summaries(rows, [{"time_ratio": 1.0, "memory_ratio": 1.0}, {"time_ratio": 0.5}, {"error": "no"}])
    assert lines[0].endswith("1 of 1 within 15%, 1.00 to 1.00, geometric mean 1.00")
    assert lines[2].endswith("0 of 1 within 15%, 0.50 to 0.50, geometric mean 0.50") and lines[3].endswith("none")


def test_a_variant_is_its_devices_file_with_what_differs(tmp_path):
    assert published.device_option("h200", tmp_path) == "h200"
    facts = json.loads(pathlib.Path(published.device_option("h100-96g", tmp_path)).read_text())
    like = json.loads((ROOT / "dryrun" / "devices" / "h100-80g.json").read_text())
    assert facts["memory_bandwidth"] == 2.4e12 and facts["efficiency"] == like["efficiency"]


def test_what_a_variant_says_of_a_group_of_facts_leaves_the_others(tmp_path):
    facts = json.loads(pathlib.Path(published.device_option("a100-80g-400", tmp_path)).read_text())
    like = json.loads((ROOT / "dryrun" / "devices" / "a100-80g.json").read_text())
    assert facts["node"] == like["node"] | {"network": 6.25e9} and facts["peak_flops"] == like["peak_flops"]


@pytest.mark.parametrize("cudnn", [False, True])
def test_a_row_of_an_older_torch_is_not_given_cudnns_attention(monkeypatch, cudnn):
    seen = []

    def dry_run_of(_program, _device, _ranks, settings, _timeout):
        seen.append(settings)
        return dry_run.DryRun({"seconds": 1.0, "tokens": 1, "reserved": GIB})

    monkeypatch.setattr(published, "dry_run", dry_run_of)
    published.run(row(seconds=1.0, cudnn=cudnn), 1)
    assert ("TORCH_CUDNN_SDPA_DEPRIORITIZED" in seen[0]) != cudnn


def test_what_a_dry_run_printed_or_how_it_failed():
    done = dry_run.read_output(0, 'x\n{"a": 1}\n{"a": 2}\n', "ebbtide dryrun: assumed: much\n", {"devices": []})
    assert done.printed == {"a": 2} and done.assumed == ("ebbtide dryrun: assumed: much",) and not done.error
    assert dry_run.read_output(1, "", "torch.OutOfMemoryError: CUDA\n", None).error == dry_run.OUT_OF_MEMORY
    assert dry_run.read_output(1, "", "  File x\nValueError: no\nebbtide: end\n", {}).error == "ValueError: no"
    assert dry_run.read_output(3, "", "", None).error == "status 3"
