"""`ebbtide report` of files that are wrong, cut, packed, old or long: one clear line, or what can be told."""

from __future__ import annotations

import gzip
import os
import pickle
import re
import sys

import pytest
import report_files as made
from conftest import ROOT

pytest.importorskip("typer", reason="the command needs typer, which is not installed here")
pytest.importorskip("numpy")

sys.path.insert(0, str(ROOT / "python_shim"))

from ebbtide import EbbtideError  # noqa: E402
from ebbtide._reports import _figures, _reading  # noqa: E402
from report_fixtures import ebbtide, libraries, read  # noqa: E402, F401

MIB = 1 << 20


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.txt", b"hello\n", "is not an Ebbtide trace, a PyTorch memory snapshot (.pickle) or an RMM log (.csv)"),
        ("empty", b"", "empty is empty"),
        ("a.pickle", pickle.dumps({"a": 1}), "it has no segments"),
        ("a.pickle", pickle.dumps(os.system), "a.pickle: byte"),
        ("a.pickle", pickle.dumps([1], 4)[:-3], "a.pickle: "),
        ("a.pickle", made.snapshot([made.entry("alloc", 1, -5)], []), "device_traces[0][0]: a size of -5"),
        ("a.pickle", made.snapshot([{"action": "alloc"}], []), "device_traces[0][0]: no key 'addr'"),
        ("a.pickle", made.snapshot([], [{"device": 0}]), "segments of device 0: no key 'address'"),
        ("a.pickle", made.snapshot([], []), "a PyTorch snapshot without any event"),
        ("a.csv", b"Thread,Time,Action,Pointer,Size,Stream\n1,10:00:00.5,lend,0x1,8,0x0\n", "a.csv:2: unknown action 'lend'"),
        ("a.csv", b"Thread,Time,Action,Pointer,Size,Stream\n1,late,free,0x1,8,0x0\n", "a.csv:2: "),
        ("a.ebb", b"EBBTRACE"[:5], "a.ebb ends inside the header"),
        ("a.ebb", made.trace([])[:20], "a.ebb ends inside the header"),
    ],
)
def test_a_wrong_file_is_one_line(ebbtide, tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    line = ebbtide("report", name)
    assert line.startswith("ebbtide error ") and line.count("\n") == 1 and said in line, line


def test_a_snapshot_of_an_old_torch_has_sizes_and_stacks_in_its_history(read):
    base = 1 << 40
    history = [{"addr": base, "real_size": MIB - 100, "frames": made.MODEL}, {"addr": base, "real_size": 7, "frames": made.SETUP}]
    blocks = [{"size": MIB, "state": "active_allocated", "history": history}, {"size": MIB, "state": "inactive"}]
    old = {"segments": [{"device": 0, "address": base, "total_size": 2 * MIB, "segment_type": "large", "blocks": blocks}]}
    (device,) = read(pickle.dumps(old)).devices
    (share,) = _figures.owners_at(device, 0)
    assert (share.name, share.size) == ("train/model.py:7 forward", MIB - 100)
    split = _figures.split_at(device, 0)
    assert (split.rounding, split.stranded, split.reserved) == (100, MIB, 2 * MIB)


def test_a_missing_file_and_a_missing_device_are_one_line(ebbtide, tmp_path):
    assert ebbtide("report", "none.pickle") == "ebbtide error none.pickle: No such file or directory\n"
    (tmp_path / "small.pickle").write_bytes(made.small_snapshot())
    assert ebbtide("report", "small.pickle", "--device", "3") == (
        "ebbtide error --device 3: not in small.pickle; there is 0\n"
    )


def test_a_cut_trace_is_told_up_to_the_cut(ebbtide, read, tmp_path):
    events = made.random_trace(1, 250)
    whole = made.trace(events)
    cut = whole[: len(whole) - 3000]
    (tmp_path / "cut.ebb").write_bytes(cut)
    lines = ebbtide("report", "cut.ebb").splitlines()
    assert len(lines) == 5 and lines[0].endswith("the trace ends early")
    recording = read(cut)
    assert recording.damage.startswith("ends ") and 0 < recording.events < len(events)
    kept = made.counts_of_trace(events[: recording.events], 0)
    assert _figures.live_curve(recording.devices[0]).tolist() == [count.requested for count in kept]


def test_a_cut_log_is_told_up_to_the_cut(read):
    content = made.rmm_log([("allocate", 4096, 100), ("allocate", 8192, 50)])
    recording = read(content[:-20])
    assert recording.damage == "ends inside line 3"
    assert _figures.live_curve(recording.devices[0]).tolist() == [0, 100]


def test_a_packed_snapshot_is_read_and_a_packed_trace_named(read):
    assert read(gzip.compress(made.small_snapshot())).devices[0].states == 13
    with pytest.raises(EbbtideError, match="unpack it with gunzip first"):
        read(gzip.compress(made.trace([])))


def test_a_snapshot_comes_through_a_pipe(ebbtide, monkeypatch):
    import io
    import types

    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=io.BytesIO(made.small_snapshot())))
    assert "peak live 9.00 MiB" in ebbtide("report", "-")


def test_a_long_file_is_said_to_be_read(monkeypatch, read, capfd):
    monkeypatch.setattr(_reading, "_LARGE", 100)
    read(made.trace(made.random_trace(1)), "run.ebb")
    assert re.fullmatch(r"ebbtide info reading \S+run.ebb, .* KiB\n", capfd.readouterr().err)


def test_random_damage_is_one_line_or_a_report():
    from fuzz_reports import run

    assert run(cases=400, seed=7) == 400
