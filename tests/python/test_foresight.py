"""What a dry run says of time, and its timeline as a trace and a picture. No torch."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree

import pytest
from ebbtide import _foresight, _timeline

SPANS = [
    {"stream": 0, "activity": "matrix", "is_stall": False, "begin": 1.0, "end": 1.5, "name": "aten::mm"},
    {"stream": 0, "activity": "copy_in", "is_stall": True, "begin": 1.5, "end": 1.75, "name": ""},
    {"stream": 2, "activity": "copy_in", "is_stall": False, "begin": 1.0, "end": 1.75, "name": ""},
]
MEMORY = [
    {"device": 0, "time": 1.0, "live": 1 << 30, "held": 2 << 30, "pinned": 0},
    {"device": 0, "time": 1.5, "live": 3 << 30, "held": 4 << 30, "pinned": 0},
]
FOUND = {"spans": SPANS, "memory": MEMORY}


def report(**changed):
    seconds = dict.fromkeys(("matrix", "attention", "other", "copy_out", "copy_in"), 0.0)
    time = {
        "total_seconds": 9.0,
        "steps": 3,
        "step_seconds": 4.0,
        "step_tokens": 8000,
        "tokens_per_second": 2000.0,
        "flops": 3e15,
        "forward_flops": 1e15,
        "mfu": 0.4321,
        "busy_seconds": seconds | {"matrix": 3.0},
        "stalled_seconds": seconds | {"copy_in": 0.9},
        "waiting_for_host_seconds": 0.1,
        "out_bytes": 2 << 30,
        "in_bytes": 1 << 30,
        "launches": 10,
        "unknown_launches": 0,
    }
    return {"peak_pinned_bytes": 3 << 30, "time": time | changed}


def test_a_step_is_told_with_where_its_time_goes():
    lines = _foresight.time_lines(report())
    assert lines[0] == (
        "a step takes 4.000 s (predicted, mean of 2), 2000 tokens/s, MFU 43.2 %, stalls 0.900 s (22.5 %)"
    )
    assert lines[1] == (
        "the time goes to matrix products 75.0 %; stalled for copies in 22.5 %; waiting for the host 2.5 %"
    )
    assert lines[2] == (
        "host memory pinned at most 3.00 GiB; a step copies 2.00 GiB out and 1.00 GiB in"
    )
    assert lines[-1].startswith("assumed: a roofline")


def test_what_is_left_of_a_step_and_more_than_one_device_could_do_are_told():
    lines = _foresight.time_lines(report(step_seconds=5.0, hfu=1.5))
    assert lines[1].endswith("; waiting for the host 2.0 %; at its end while others go on 20.0 %")
    assert any("150.0 % of the device's peak together" in line for line in lines)
    assert not any("peak together" in line for line in _foresight.time_lines(report(hfu=0.9)))


def test_short_steps_are_told_in_milliseconds():
    first = _foresight.time_lines(report(step_seconds=0.0004219))[0]
    assert first.startswith("a step takes 0.422 ms (predicted")


def test_a_share_of_the_peak_is_told_where_a_forward_pass_was_seen():
    assert ", MFU not known, stalls" in _foresight.time_lines(report(forward_flops=0.0, mfu=0.0))[0]
    assert ", MFU 0.0 %, stalls" in _foresight.time_lines(report(flops=0.0, forward_flops=0.0, mfu=0.0))[0]


def test_a_program_that_never_steps_is_told_so():
    lines = _foresight.time_lines(report(steps=0, step_seconds=None))
    assert lines[0] == "9.000 s in all (predicted); no training step was recognised in it"


def test_kernels_of_unknown_length_are_told():
    assert any("7 kernels a step" in line for line in _foresight.time_lines(report(unknown_launches=7)))


def test_a_program_without_work_says_nothing():
    assert _foresight.time_lines(report(launches=0)) == []


def test_the_trace_is_what_perfetto_reads(tmp_path):
    _timeline.write(FOUND, tmp_path / "run.json")
    events = json.loads((tmp_path / "run.json").read_text())["traceEvents"]
    work = [event for event in events if event["ph"] == "X"]
    assert [event["name"] for event in work] == [
        "matrix: aten::mm",
        "stalled for copy in",
        "copy in",
    ]
    assert work[1]["ts"] == pytest.approx(1.5e6) and work[1]["dur"] == pytest.approx(0.25e6)
    assert {event["tid"] for event in events if "tid" in event} == {0, 2}
    named = {event["tid"]: event["args"]["name"] for event in events if event["ph"] == "M"}
    assert named == {0: "stream 0: compute", 2: "stream 2: copies in"}
    counted = [(event["ts"], event["args"]["live"]) for event in events if event["ph"] == "C"]
    assert counted == [(1e6, 1 << 30), (1.5e6, 3 << 30)]


def test_the_picture_has_a_line_for_each_stream_and_its_stalls_in_red(tmp_path):
    _timeline.write(FOUND, tmp_path / "run.svg")
    root = ElementTree.parse(tmp_path / "run.svg").getroot()
    shapes = [shape for shape in root if shape.tag.endswith("rect") and len(shape)]
    assert len(shapes) == 3
    first, stall, copy = shapes
    assert float(stall.get("x")) == pytest.approx(float(first.get("x")) + float(first.get("width")), abs=0.02)
    assert stall.get("fill") == "var(--stall)" and copy.get("y") != first.get("y")
    assert ElementTree.fromstring(_timeline.picture([])) is not None


def test_memory_is_drawn_under_the_streams(tmp_path):
    _timeline.write(FOUND, tmp_path / "run.html")
    text = (tmp_path / "run.html").read_text()
    root = ElementTree.fromstring(text[text.index("<svg") : text.index("</main>")])
    curves = {shape.get("stroke"): shape.get("d") for shape in root if shape.get("class") == "curve"}
    # no host memory was pinned: it has no curve
    assert set(curves) == {"var(--held)", "var(--live)"}
    lowest = [float(part) for part in curves["var(--held)"].replace("H", " ").replace("V", " ").split()[1:4]]
    first, last = lowest[0], lowest[2]
    rows = max(float(shape.get("y")) for shape in root if shape.tag.endswith("rect") and len(shape))
    # 4 GiB is the top, 2 GiB the middle, and both are under the last stream
    assert last > rows and first == pytest.approx(last + 75)


def test_a_column_of_pixels_keeps_its_extremes():
    points = [(10.0 + i / 1000, float(i % 7)) for i in range(100)]
    path = _timeline._steps(points, 20.0)
    assert path.count("H") <= 5 and "V6.0" in path and path.endswith("H20.0")


@pytest.mark.parametrize(("option", "setting"), [("json_path", "--json"), ("timeline_path", "--timeline")])
def test_a_file_that_cannot_be_written_is_told_before_the_program_runs(option, setting, monkeypatch, capsys):
    from ebbtide import _dryrun

    monkeypatch.setattr(_dryrun, "check_torch", lambda: None)
    assert _dryrun.run(["/no/such/program"], **{option: "/no/such/folder/file.json"}) == 2
    assert capsys.readouterr().err == (
        f"ebbtide dryrun: {setting} /no/such/folder/file.json: cannot be written; give a file in a folder of yours\n"
    )
