"""What a trace tells of streams, swaps and layers: every figure against a plain count over the raw events."""

from __future__ import annotations

import json
import os
import random
import sys

import pytest
import report_files as made
from conftest import ROOT

pytest.importorskip("typer", reason="the command needs typer, which is not installed here")
np = pytest.importorskip("numpy")

sys.path.insert(0, str(ROOT / "python_shim"))

from ebbtide import _cli  # noqa: E402
from ebbtide._reports import _activity, _figures, _reading  # noqa: E402

EXPECTED = ROOT / "tests" / "data" / "reports"
MIB = 1 << 20


@pytest.fixture(autouse=True)
def libraries(native, monkeypatch):
    monkeypatch.setenv("EBBTIDE_NATIVE_DIR", str(native))


@pytest.fixture
def device_of(tmp_path):
    def read(events):
        path = tmp_path / "run.ebb"
        path.write_bytes(made.trace(events))
        return next(device for device in _reading.read(str(path)).devices if device.index == 0)

    return read


@pytest.fixture
def ebbtide(tmp_path, monkeypatch, capfd):
    def run(*arguments: str) -> str:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "busy.ebb").write_bytes(made.trace(made.busy_trace()))
        monkeypatch.setattr(sys, "argv", ["ebbtide", "report", "busy.ebb", *arguments])
        with pytest.raises(SystemExit) as ended:
            _cli.main()
        assert ended.value.code == 0
        return capfd.readouterr().out

    return run


def covered(intervals):
    """Nanoseconds that at least one of the intervals covers, by going through every one of them."""
    return len({moment for begin, end in intervals for moment in range(begin, end)})


def random_activity(seed):
    """A segment, and work on three streams within 400 ns."""
    choose = random.Random(seed)
    names = ["a", "b", "a kernel with a name of more than twenty-four bytes"]
    events = [record for number, text in enumerate(names, 1) for record in made.name(number, text)]
    events += [made.Event(made.SEGMENT_TAKEN, 1 << 40, MIB, time_ns=1000), made.Event(made.ACTIVITY_COUNT, device=made.NO_DEVICE)]
    for _ in range(60):
        begin, length, stream = choose.randrange(1000, 1400), choose.randrange(1, 50), choose.choice((7, 13, 14))
        if choose.random() < 0.6:
            events.append(made.Event(made.KERNEL, choose.randrange(1, 4), length, stream=stream, time_ns=begin))
        else:
            events.append(made.Event(made.COPY, length, 4096, choose.choice((1, 2, 8)), stream=stream, time_ns=begin))
    return events


@pytest.mark.parametrize("seed", range(8))
def test_times_of_streams_are_those_of_a_plain_count(seed, device_of):
    events = random_activity(seed)
    activity = device_of(events).activity
    works = [(e.time_ns, e.time_ns + (e.bytes if e.action == made.KERNEL else e.address), e) for e in events if e.action in (made.KERNEL, made.COPY)]
    for share in _activity.streams(activity.work):
        own = [work for work in works if work[2].stream == share.stream]
        assert share.busy_ns == covered([work[:2] for work in own])
        assert share.kernels == sum(work[2].action == made.KERNEL for work in own)
        assert share.copied_bytes == sum(work[2].bytes for work in own if work[2].action == made.COPY)
    kernels = [work[:2] for work in works if work[2].action == made.KERNEL]
    copies = [work[:2] for work in works if work[2].action == made.COPY and work[2].detail in (1, 2)]
    found = _activity.overlap(activity)
    assert (found.kernel_ns, found.copy_ns) == (covered(kernels), covered(copies))
    assert found.both_ns == covered(kernels) + covered(copies) - covered(kernels + copies)
    assert found.idle_ns == found.span_ns - covered(kernels + copies)
    assert sum(share.ns for share in _activity.works(activity)) == sum(end - begin for begin, end, _ in works)
    assert {share.name for share in _activity.works(activity)} <= {
        "a", "b", "a kernel with a name of more than twenty-four bytes",
        "copy host to device", "copy device to host", "copy device to device",
    }  # fmt: skip


def test_they_are_no_events_of_the_allocator(device_of):
    events = made.busy_trace()
    device = device_of(events)
    alone = device_of([e for e in events if not made.KERNEL <= e.action <= made.DECISION])
    assert device.states == alone.states and device.owners == alone.owners
    assert np.array_equal(_figures.live_curve(device), _figures.live_curve(alone))
    assert alone.activity is None


def test_the_split_names_what_libraries_took_and_adds_up(device_of):
    device = device_of(made.busy_trace())
    state = _figures.peak_state(device)
    split = _figures.split_at(device, state)
    parts = dict(split.parts)
    # 300 MiB are used, 64 of them torch's, as counted before 4 MiB of no known library were given back.
    assert parts["not torch: libraries"] == split.libraries == (96 + 4) * MIB
    assert parts["not torch: contexts and others"] == (300 - 64 - 100) * MIB
    assert sum(size for _, size in split.parts) == split.device_used == 300 * MIB
    later = _figures.split_at(device, device.states - 1)
    assert later.libraries == 96 * MIB
    assert sum(size for _, size in later.parts) == later.device_used


def test_memory_of_torchs_own_segments_is_torchs_whenever_it_was_told(device_of):
    activity = device_of(made.busy_trace()).activity
    assert sorted(activity.foreign.size.tolist()) == [4 * MIB, 96 * MIB]


def test_swaps_are_counted_by_layer(device_of):
    activity = device_of(made.busy_trace()).activity
    totals = _activity.swap_totals(activity)
    assert (totals.tickets, totals.out_bytes, totals.in_bytes) == (4, 64 * MIB, 48 * MIB)
    assert totals.copying_ns == 2 * (150 + 100 + 100 + 60) * 1000 and totals.exposed_ns == 2 * 90 * 1000
    assert (totals.peak_host_bytes, totals.peak_pinned_bytes) == (32 * MIB, 40 * MIB)
    first, second = _activity.layers(activity)
    assert (first.layer, first.kept, first.swapped, first.recomputed) == ("model.layers.0", 0, 32 * MIB, 8 * MIB)
    assert (first.tickets, first.copying_ns, first.exposed_ns) == (2, 420_000, 120_000)
    # Its swaps were made in a part of it.
    assert (second.layer, second.kept, second.swapped, second.tickets) == ("model.layers.1", 4 * MIB, 32 * MIB, 2)
    times, host = _activity.host_curve(activity.swaps)
    assert host.max() == 32 * MIB and host[-1] == 0 and (np.diff(times) >= 0).all()


def test_pinned_host_memory_is_that_of_a_plain_count(device_of):
    choose = random.Random(4)
    events, alive, expected = [made.Event(made.ACTIVITY_COUNT, device=made.NO_DEVICE)], {}, []
    for i in range(200):
        at, address = 1000 * (i + 1), 4096 * choose.randrange(1, 12)
        if alive.pop(address, None) is not None:
            events.append(made.Event(made.CUDA_FREE, address, time_ns=at))
        else:
            alive[address] = choose.randrange(1, 1 << 20) if choose.random() < 0.7 else 0
            kind = 2 if alive[address] else 3  # pinned, or of the device
            events.append(made.Event(made.CUDA_ALLOCATE, address, alive[address] or 77, kind, time_ns=at))
        expected.append((at, sum(alive.values())))
    choose.shuffle(events)  # CUPTI tells late and in no order
    activity = device_of([*events, made.Event(made.ALLOCATE, 1 << 40, 512, time_ns=1)]).activity
    told = dict(zip(activity.cuda_pinned_times.tolist(), activity.cuda_pinned.tolist(), strict=True))
    assert told and told.items() <= dict(expected).items()
    assert max(told.values()) == max(size for _, size in expected)


def test_a_ticket_that_is_not_released_stays(device_of):
    events = [made.Event(made.ALLOCATE, 1 << 40, 512), made.Event(made.SWAP_OUT, 9, 4096), made.Event(made.SWAP_IN, 8, 4096)]
    activity = device_of(events).activity
    assert _activity.host_curve(activity.swaps)[1].tolist() == [4096]
    assert _activity.swap_totals(activity).in_bytes == 0


def test_the_text_is_as_expected(ebbtide):
    told = ebbtide("--streams", "--swaps", "--peak", "--time-limit", "0")
    expected = EXPECTED / "busy.txt"
    if os.environ.get("EBBTIDE_TEST_REWRITE"):
        expected.write_text(told)
    assert told == expected.read_text()


def test_json_and_perfetto_tell_the_same(ebbtide, tmp_path):
    (device,) = json.loads(ebbtide("--json", "--time-limit", "0"))["devices"]
    assert device["streams"]["lost_records"] == 3
    assert device["streams"]["overlap"]["kernel_ns"] == 2 * 400_000
    assert [share["stream"] for share in device["streams"]["streams"]] == [7, 13, 14]
    assert device["streams"]["libraries"][0] == {"name": "libnccl.so.2", "size": 96 * MIB, "blocks": 1}
    assert sum(share["size"] for share in device["streams"]["libraries"]) == device["peak"]["bytes"]["libraries"]
    assert device["swaps"]["out_bytes"] == 64 * MIB and device["swaps"]["layers"][0]["recomputed"] == 8 * MIB
    assert device["swaps"]["pinned"]["bytes"] == [40 * MIB] and max(device["swaps"]["host"]["bytes"]) == 32 * MIB
    ebbtide("--perfetto", "out.json", "--time-limit", "0")
    events = json.loads((tmp_path / "out.json").read_text())["traceEvents"]
    tracks = {event["args"]["name"] for event in events if event["name"] == "thread_name"}
    assert {"stream 7", "stream 13", "stream 14", "copies out", "copies in"} <= tracks
    gemms = [event for event in events if event["name"] == "gemm(float*, int)"]
    assert [event["dur"] for event in gemms] == [300.0, 300.0] and gemms[0]["ts"] == 148.0
    pinned = [event["args"]["bytes"] for event in events if event["name"] == "pinned host memory"]
    assert pinned == [40 * MIB]


def test_without_any_the_text_says_how_to_get_it(ebbtide, tmp_path, monkeypatch, capfd):
    ebbtide()
    (tmp_path / "plain.ebb").write_bytes(made.trace(made.random_trace(1)))
    monkeypatch.setattr(sys, "argv", ["ebbtide", "report", "plain.ebb", "--streams", "--swaps", "--time-limit", "0"])
    with pytest.raises(SystemExit):
        _cli.main()
    told = capfd.readouterr().out
    assert "What the streams did: not in the file; EBBTIDE_CUPTI=1 records it" in told and "Swaps: none in the file" in told


def test_what_torch_alone_served_is_part_of_the_peak(ebbtide, tmp_path, monkeypatch, capfd):
    # GIVEN a block that the engine planned, and one that was too small for it and is torch's alone
    ebbtide()
    events = [
        made.Event(made.SEGMENT_TAKEN, 1 << 40, 8 * MIB),
        made.Event(made.UPSTREAM_ALLOCATE, 1 << 40, MIB),
        made.Event(made.ALLOCATE, (1 << 40) + MIB, 3 * MIB),
    ]
    (tmp_path / "both.ebb").write_bytes(made.trace(events))
    monkeypatch.setattr(sys, "argv", ["ebbtide", "report", "both.ebb", "--time-limit", "0"])
    with pytest.raises(SystemExit):
        _cli.main()
    told = capfd.readouterr().out
    assert "peak live 4.00 MiB" in told and "peak reserved 8.00 MiB, fragmentation 100.0 %" in told
