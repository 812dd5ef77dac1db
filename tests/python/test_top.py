"""`ebbtide top`: a running process, a trace, and what is not there."""

from __future__ import annotations

import ctypes
import json
import os
import pathlib
import re
import struct
import sys

import pytest
import report_files as made
from conftest import ROOT

sys.path.insert(0, str(ROOT / "python_shim"))

from ebbtide import EbbtideError, _top  # noqa: E402

MIB = 1 << 20


def page(tmp_path, monkeypatch, process=None, sequence=2, **fields) -> int:
    """A page written by hand, in a folder of ours."""
    monkeypatch.setattr(_top, "_FOLDER", tmp_path)
    process = process or os.getpid()
    status = _top.StatusStruct(process=process, **fields)
    head = struct.pack("<QQ", _top._MAGIC, sequence)
    (tmp_path / f"ebbtide-{os.getuid()}-{process}").write_bytes(head + bytes(status))
    return process


def test_the_layout_is_the_headers():
    header = (ROOT / "profiler" / "status_page.h").read_text()
    for name, python in (("StatusDevice", _top.DeviceStruct), ("Status1", _top.StatusStruct)):
        body = re.search(rf"struct {name} \{{(.*?)\n\}};", header, re.DOTALL)[1]
        body = re.sub(r"//.*", "", body)
        fields = re.findall(r"(\w+) = 0", body) + (["device"] if name == "Status1" else [])
        assert [field for field, _ in python._fields_] == fields
    assert f"0x{_top._MAGIC:x}" in header.lower()


def test_the_screen_shows_the_pages_numbers(tmp_path, monkeypatch):
    device = _top.DeviceStruct(
        device=0, live=512 * MIB, peak_live=768 * MIB, reserved=1024 * MIB, peak_reserved=1024 * MIB, arena=600 * MIB,
        plan_height=590 * MIB, settled_bytes=1000, settled_planned_bytes=995, divergences=3, rounds=40,
    )
    process = page(
        tmp_path, monkeypatch, steps=20, last_step_ns=1_500_000_000, devices=1,
        device=(_top.DeviceStruct * 16)(device), pinned=64 * MIB, host_live=32 * MIB, swapped_out=128 * MIB,
        swapped_in=96 * MIB, copying_ns=1000, exposed_ns=25,
    )  # fmt: skip
    lines = _top.render(_top.look("")).splitlines()
    assert lines[0].startswith(f"ebbtide top  process {process}  ")
    assert lines[1].startswith("step 20, 1.500 s a step; as of ")
    assert lines[2] == (
        f"cuda:0  [{'#' * 15}{'-' * 15}]  live 512.00 MiB, peak 768.00 MiB; reserved 1.00 GiB, peak 1.00 GiB"
    )
    assert lines[3] == "  arena 600.00 MiB, plan 590.00 MiB, serves 99.5 % of bytes; 3 divergences in 40 rounds"
    assert lines[4] == "host  32.00 MiB of 64.00 MiB pinned hold offloaded tensors"
    assert lines[5] == "  link: 128.00 MiB out, 96.00 MiB in; 2.5 % of its time is waited for"


def test_two_looks_tell_the_links_speed(tmp_path, monkeypatch):
    process = page(tmp_path, monkeypatch, updated_ns=10**9, swapped_out=MIB, pinned=1)
    first = _top.look(str(process))
    page(tmp_path, monkeypatch, updated_ns=3 * 10**9, swapped_out=5 * MIB, swapped_in=2 * MIB, pinned=1)
    assert "now 2.00 MiB/s out, 1.00 MiB/s in" in _top.render(_top.look(str(process), first))


@pytest.mark.parametrize("wrong", ["odd", "magic", "short"])
def test_a_page_that_cannot_be_read_is_one_line(tmp_path, monkeypatch, wrong):
    process = page(tmp_path, monkeypatch, sequence=3 if wrong == "odd" else 2)
    path = tmp_path / f"ebbtide-{os.getuid()}-{process}"
    if wrong == "magic":
        path.write_bytes(bytes(8) + path.read_bytes()[8:])
    elif wrong == "short":
        path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(EbbtideError, match=f"process {process} (writes|runs another)"):
        _top.look(str(process))


def test_pages_of_the_dead_are_removed_and_said(tmp_path, monkeypatch):
    gone = 2**22 + 1  # beyond what the system gives
    page(tmp_path, monkeypatch, process=gone)
    with pytest.raises(EbbtideError, match="no process runs with EBBTIDE=1"):
        _top.look("")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(EbbtideError, match=f"process {gone} does not run"):
        _top.look(str(gone))


def test_a_trace_is_shown_as_it_ends(native, tmp_path, monkeypatch):
    monkeypatch.setenv("EBBTIDE_NATIVE_DIR", str(native))
    events = [
        made.Event(made.SEGMENT_TAKEN, 1 << 30, 8 * MIB),
        made.Event(made.ALLOCATE, 1 << 30, 3 * MIB),
        made.Event(made.MARK, detail=4, time_ns=10**9),
        made.Event(made.FREE, 1 << 30, 3 * MIB, time_ns=2 * 10**9),
        made.Event(made.MARK, detail=4, time_ns=3 * 10**9),
    ]
    path = tmp_path / "run.ebb"
    path.write_bytes(made.trace(events))
    lines = _top.render(_top.look(str(path))).splitlines()
    assert lines[1].startswith("step 2, 2.000 s a step")
    assert "live 0 B, peak 3.00 MiB; reserved 8.00 MiB, peak 8.00 MiB" in lines[2]


def test_a_trace_with_a_plan_says_so_as_its_report_does(native, tmp_path, monkeypatch):
    monkeypatch.setenv("EBBTIDE_NATIVE_DIR", str(native))
    events = [made.Event(made.PLAN, bytes=3 * MIB), made.Event(made.ALLOCATE, 1 << 30, 3 * MIB, placement=1),
              made.Event(made.ALLOCATE, 1 << 31, MIB, placement=3), made.Event(made.ROUND)]  # fmt: skip
    (tmp_path / "run.ebb").write_bytes(made.trace(events))
    told = _top.render(_top.look(str(tmp_path / "run.ebb")))
    assert told.splitlines()[3] == "  plan 3.00 MiB, serves 75.0 % of bytes; 1 divergences in 1 rounds"


def test_a_running_process_is_seen_and_leaves_nothing(run_python, native, python_environment):
    code = """
        import json, os, subprocess, sys, time, torch
        from ebbtide import _native
        layer = torch.nn.Linear(512, 512)
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
        for _ in range(8):
            layer(torch.ones(64, 512)).sum().backward()
            optimizer.step()
            time.sleep(0.06)
        looks = [subprocess.run([sys.executable, "-m", "ebbtide", "top", str(os.getpid()), "--once"],
                                capture_output=True, text=True)]
        if os.fork() == 0:  # a child is not its parent
            _native.library().ebbtide_step()
            os._exit(0)
        os.wait()
        import ebbtide
        print(json.dumps([looks[0].stdout, looks[0].stderr, os.getpid(), ebbtide.stats().live_bytes]))
    """
    done = run_python(
        code, EBBTIDE="1", EBBTIDE_DEVICES="cpu", EBBTIDE_REPORT="off", EBBTIDE_NATIVE_DIR=str(native)
    )
    assert done.returncode == 0, done.stderr
    text, error, process, live = json.loads(done.stdout.splitlines()[-1])
    assert error == "" and f"process {process}" in text
    steps, seconds = re.search(r"step (\d+), (\d\.\d+) s a step", text).groups()
    assert int(steps) >= 4 and 0.05 < float(seconds) < 5
    assert re.search(r"cpu  \[#+.*live \d", text) and live > 0
    assert not pathlib.Path(f"/dev/shm/ebbtide-{os.getuid()}-{process}").exists()
