"""The report's text, from summaries made by hand: no library is needed.

The golden lines for running statistics are those of tests/unit/profiler/report_text_test.cpp.
"""

from __future__ import annotations

import ctypes
import re

import pytest

from ebbtide import EbbtideError, _abi, _native, _report

GIB = 1 << 30


def trace_summary(**changes):
    return {
        "device": 0,
        "truncated": False,
        "events": 30_000,
        "allocations": 10_000,
        "frees": 9_990,
        "peak_live_bytes": 100 * GIB,
        "live_bytes_at_end": 40 * GIB,
        "peak_reserved_bytes": 102 * GIB,
        "planned_allocations": 9_000,
        "gap_allocations": 50,
        "diverged_allocations": 12,
        "allocated_bytes": 1000 * GIB,
        "planned_bytes": 950 * GIB,
        "gap_bytes": GIB,
        "diverged_bytes": GIB,
        "rounds": 20,
        "plans": 2,
        "plan_height_bytes": 99 * GIB,
        "duration_ns": 5_000_000_000,
        "lost_events": 0,
        **changes,
    }


def statistics(**changes):
    summary = trace_summary()
    del summary["truncated"]
    return {
        **summary,
        "serving": True,
        "reserved_bytes": 101 * GIB,
        "observed_peak_reserved_bytes": 120 * GIB,
        "settled_allocations": 8_000,
        "settled_planned_allocations": 7_999,
        "settled_allocated_bytes": 800 * GIB,
        "settled_planned_bytes": 800 * GIB,
        "divergences": {"unexpected": 7, "outgrown": 5, "place_taken": 0, "no_memory": 1},
        "first_divergence": "4.00 KiB in round 3, where none was expected",
        "programs": 1,
        **changes,
    }


def line(number, summary):
    return _report.render_text(summary).splitlines()[number]


def test_text_of_statistics_is_the_report_at_exit():
    assert _report.render_text(statistics()) == (
        "ebbtide report (cuda:0, plan in force): peak live 100.00 GiB\n"
        "  peak reserved 102.00 GiB, fragmentation 2.0 %\n"
        "  served by the plan: 95.0 % of bytes, 90.0 % of allocations; "
        "after warm-up 100.0 % and 99.9 %\n"
        "  divergences: 13 (7 unexpected, 5 outgrown, 1 no memory); the first: "
        "4.00 KiB in round 3, where none was expected\n"
        "  saved: 19.00 GiB; the native allocator's own peak while observing was 120.00 GiB, "
        "now 101.00 GiB are held\n"
    )


def test_text_of_a_trace_claims_only_what_a_trace_knows():
    assert _report.render_text(trace_summary()) == (
        "ebbtide report (cuda:0, plan in force): peak live 100.00 GiB\n"
        "  peak reserved 102.00 GiB, fragmentation 2.0 %\n"
        "  served by the plan: 95.0 % of bytes, 90.0 % of allocations\n"
        "  divergences: 12\n"
        "  saved: not known from a trace; the report at exit tells\n"
    )


def test_text_of_a_run_that_was_too_short_says_so():
    summary = trace_summary(
        device=-1,
        allocations=3,
        peak_live_bytes=3 << 20,
        peak_reserved_bytes=0,
        diverged_allocations=0,
        rounds=1,
        plans=0,
    )
    assert _report.render_text(summary) == (
        "ebbtide report (cpu, no plan: fewer than two iterations were seen): "
        "peak live 3.00 MiB\n"
        "  peak reserved: not measured\n"
        "  served by the plan: nothing\n"
        "  divergences: none\n"
        "  saved: nothing, as no plan was in force\n"
    )


def test_text_names_lost_events_and_a_cut_trace():
    assert line(0, trace_summary(lost_events=4, truncated=True)).endswith(
        "peak live 100.00 GiB; 4 trace events were lost; the trace ends early"
    )


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"observe_only": True}, "only observing, as EBBTIDE=observe asks"),
        ({"allocations": 0}, "nothing was allocated"),
        ({"plans": 1}, "the last one was given up"),
        ({"plans": 0, "rounds": 9, "programs": 0}, "no repetition was found in 9 iterations"),
        ({"plans": 0, "rounds": 9}, "none was ready before the end"),
    ],
)
def test_text_says_why_there_is_no_plan(changes, reason):
    assert f"(cuda:0, no plan: {reason})" in line(0, statistics(serving=False, **changes))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"plan_was_loaded": True}, "  saved: not known, as the plan was loaded"),
        (
            {"observed_peak_reserved_bytes": 0},
            "  saved: not known, as no whole iteration was observed before the plan",
        ),
        (
            {"reserved_bytes": 130 * GIB},
            "  saved: nothing; the native allocator's own peak while observing was 120.00 GiB, "
            "now 130.00 GiB are held",
        ),
    ],
)
def test_text_never_claims_savings_that_were_not_measured(changes, expected):
    assert line(4, statistics(**changes)) == expected


def test_almost_all_is_not_all():
    assert "99.9 % of bytes" in line(2, trace_summary(planned_bytes=1000 * GIB - 1))


def test_a_warm_up_without_end_is_said_in_words():
    assert line(2, statistics(settled_allocations=0)).endswith(
        "; nothing was allocated after warm-up"
    )


def test_text_has_five_lines_whatever_the_cause_says():
    assert _report.render_text(statistics(first_divergence="two\nlines")).count("\n") == 5


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (512, "512 B"),
        (1024, "1.00 KiB"),
        (3 << 19, "1.50 MiB"),
        (1 << 52, "4096.00 TiB"),
    ],
)
def test_sizes_read_as_in_the_native_report(size, text):
    assert _report.size_text(size) == text


class FakeLibrary:
    """Stands for the engine: answers with a known summary, or refuses."""

    def __init__(self, status):
        self.status = status
        self.paths = []

    def ebbtide_summarize_trace(self, path, summary):
        self.paths.append(path)
        target = summary._obj
        assert target.struct_size == ctypes.sizeof(_abi.TraceSummaryStruct)
        target.device, target.truncated, target.events, target.lost_events = -1, 1, 77, 3
        return self.status

    def ebbtide_last_error(self):
        return b"run.ebb is empty, not an Ebbtide trace"


def test_summarize_returns_the_fields_of_the_c_struct(monkeypatch, tmp_path):
    library = FakeLibrary(status=0)
    monkeypatch.setattr(_native, "library", lambda: library)
    summary = _report.summarize(tmp_path / "run.ebb")
    assert library.paths == [str(tmp_path / "run.ebb").encode()]
    assert summary["device"] == -1
    assert summary["truncated"] is True
    assert summary["events"] == 77
    assert summary["lost_events"] == 3
    assert set(summary) == set(trace_summary())


def test_summarize_passes_on_why_a_trace_cannot_be_read(monkeypatch):
    monkeypatch.setattr(_native, "library", lambda: FakeLibrary(status=8))
    with pytest.raises(EbbtideError, match=re.escape("run.ebb is empty, not an Ebbtide trace")):
        _report.summarize("run.ebb")
