"""`ebbtide report`: every figure against a plain count over the raw events, texts against files, wrong files in one line."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import sys

import pytest
import report_files as made
import report_recount
from conftest import ROOT

pytest.importorskip("typer", reason="the command needs typer, which is not installed here")
np = pytest.importorskip("numpy")

sys.path.insert(0, str(ROOT / "python_shim"))

from ebbtide._reports import _figures, _out_of_memory, _perfetto, _planned, _reading, _stacks  # noqa: E402
from ebbtide._reports._model import Category, Phase  # noqa: E402
from report_fixtures import ebbtide, libraries, read  # noqa: E402, F401

EXPECTED = ROOT / "tests" / "data" / "reports"
MIB = 1 << 20
TABLES = ("--peak", "--owners", "--segments", "--timeline", "--oom")


def check_text(name: str, text: str) -> None:
    """Against tests/data/reports/NAME; EBBTIDE_TEST_REWRITE=1 writes it instead, to be looked at."""
    path = EXPECTED / name
    if os.environ.get("EBBTIDE_TEST_REWRITE"):
        path.write_text(text)
    assert text == path.read_text()


# Texts.


def test_a_snapshot_is_told_as_expected(ebbtide, tmp_path):
    (tmp_path / "small.pickle").write_bytes(made.small_snapshot())
    check_text("small.txt", ebbtide("report", "small.pickle", *TABLES))


def test_a_log_is_told_as_expected(ebbtide, tmp_path):
    lines = [("allocate", 4096, MIB), ("allocate", 1 << 30, 3 * MIB), ("free", 4096, MIB)]
    (tmp_path / "rmm.csv").write_bytes(made.rmm_log([*lines, ("allocate failure", 0, 7 * MIB)]))
    check_text("rmm.txt", ebbtide("report", "rmm.csv", *TABLES))


def test_two_recordings_are_set_beside_each_other(ebbtide, tmp_path):
    (tmp_path / "a.pickle").write_bytes(made.small_snapshot())
    (tmp_path / "b.csv").write_bytes(made.rmm_log([("allocate", 4096, 12 * MIB)]))
    check_text("compared.txt", ebbtide("report", "a.pickle", "--compare", "b.csv"))


@pytest.mark.parametrize("name", ["si_memory_forward_bf16_128", "wl_medium_128_training"])
def test_snapshots_of_others_are_told_as_expected(ebbtide, monkeypatch, name):
    folder = os.environ.get("EBBTIDE_TEST_SNAPSHOTS")
    if not folder:
        pytest.skip("EBBTIDE_TEST_SNAPSHOTS does not name the folder of the two PyTorch snapshots")
    check_text(f"{name}.txt", ebbtide("report", f"{folder}/{name}.pickle", *TABLES))


# Figures.


def naive_split(counts: list[made.Count], state: int) -> list[int]:
    c = counts[state]
    free = c.reserved - c.held
    return [c.requested, c.held - c.requested, free - c.empty, c.empty, c.reserved]


@pytest.mark.parametrize("seed", range(20))
def test_every_state_of_a_trace_adds_up_as_counted_by_hand(read, seed):
    # GIVEN a random history
    events = made.random_trace(seed)
    device = read(made.trace(events)).devices[0]
    counts = made.counts_of_trace(events, 0)
    assert device.states == len(counts)
    # THEN in every state each part is what a loop over the events says, and the parts sum to the device's count
    live, reserved = _figures.live_curve(device), _figures.reserved_curve(device)
    assert live.tolist() == [count.requested for count in counts]
    assert reserved.tolist() == [count.reserved for count in counts]
    for state, count in enumerate(counts):
        split = _figures.split_at(device, state)
        told = [split.requested, split.rounding, split.stranded, split.cached, split.reserved]
        assert told == naive_split(counts, state)
        assert split.device_used == count.used
        if count.used is not None:
            assert sum(size for _, size in split.parts) == count.used
    assert _figures.peak_state(device) == live.tolist().index(max(live))
    assert _figures.peak_reserved(device) == max(count.reserved for count in counts)


@pytest.mark.parametrize("seed", range(5))
def test_owners_categories_and_the_timeline_sum_to_what_is_alive(read, seed):
    device = read(made.trace(made.random_trace(seed))).devices[0]
    for state in range(0, device.states, 7):
        live = int(_figures.live_curve(device)[state])
        assert sum(share.size for share in _figures.owners_at(device, state)) == live
        assert sum(share.size for share in _figures.categories_at(device, state)) == live
    line = _figures.timeline(device, 13)
    assert line.live.max() == _figures.live_curve(device).max()
    assert sum(line.categories.values()).tolist() == line.live.tolist()


@pytest.mark.parametrize("seed", range(8))
def test_every_number_of_the_json_is_what_a_loop_over_the_events_says(ebbtide, tmp_path, seed):
    events = report_recount.random_run(seed)
    (tmp_path / "a.ebb").write_bytes(made.trace(events))
    told = json.loads(ebbtide("report", "a.ebb", "--json"))
    assert (told["events"], told["complete"], told["damage"], told["lost_events"]) == (len(events), True, "", 0)
    (device,) = told["devices"]
    line, saving = device.pop("timeline"), device.pop("saving")
    expected = report_recount.device_of(events)
    assert device == expected
    counts = made.counts_of_trace(events, 0)
    shown = [counts[state] for state in line["events"]]
    assert line["live_bytes"] == [count.requested for count in shown]
    assert line["reserved_bytes"] == [count.reserved for count in shown]
    assert line["device_used_bytes"] == [count.used or 0 for count in shown]
    blocks = report_recount.blocks_of(events)
    for name, sizes in line["categories"].items():
        of = [block for block in blocks if report_recount.category_of(block, blocks, len(counts)) == name]
        assert sizes == [sum(b["size"] for b in of if b["birth"] <= state < b["death"]) for state in line["events"]]
    most = max(count.held for count in counts)
    assert saving["reserved"] == expected["peak_reserved_bytes"] and saving["share"] == 1 - saving["plan"] / saving["reserved"]
    assert saving["plan"] >= saving["lower_bound"] >= most if saving["is_lowest"] else saving["plan"] >= most


@pytest.mark.parametrize("seed", range(3))
def test_the_largest_free_piece_and_the_largest_blocks_are_those_of_a_plain_search(read, seed):
    events = report_recount.random_run(seed)
    (device,) = read(made.trace(events)).devices
    blocks = report_recount.blocks_of(events)
    own = [event for event in events if event.action not in report_recount.OF_NO_DEVICE]
    for state in range(1, device.states, 11):
        there = [block for block in blocks if block["birth"] <= state < block["death"]]
        ranges = {}
        for event in own[:state]:
            if event.action == made.SEGMENT_TAKEN:
                ranges[event.address] = event.bytes
            elif event.action == made.SEGMENT_GIVEN_BACK:
                del ranges[event.address]
        # Byte by byte, in the allocator's grains.
        longest = 0
        for begin, size in ranges.items():
            taken = set()
            for block in there:
                taken |= set(range(block["address"] // 512, (block["address"] + block["size"] + 511) // 512))
            run = 0
            for grain in range(begin // 512, (begin + size) // 512):
                run = 0 if grain in taken else run + 1
                longest = max(longest, 512 * run)
        assert _out_of_memory.largest_free(device, state) == longest
        largest = [int(device.blocks.size[i]) for i in _figures.largest_at(device, state, 5)]
        assert largest == sorted((block["size"] for block in there), reverse=True)[:5]


def test_a_snapshots_end_is_what_its_segments_say(read):
    content = made.small_snapshot()
    device = read(content).devices[0]
    blocks = [block for segment in pickle.loads(content)["segments"] for block in segment["blocks"]]
    alive = [block for block in blocks if block["state"] == "active_allocated"]
    split = _figures.split_at(device, device.states - 1)
    assert split.requested == sum(block["requested_size"] for block in alive)
    assert split.requested + split.rounding == sum(block["size"] for block in alive)
    assert split.reserved == sum(block["size"] for block in blocks)
    assert (split.stranded, split.cached) == (4 * MIB + 10 * MIB + MIB, 2 * MIB)
    assert sum(size for _, size in split.parts) == split.reserved


def test_a_snapshot_knows_its_beginning_from_its_end(read):
    # The third segment and its block have no event: they were there before.
    device = read(made.small_snapshot()).devices[0]
    assert _figures.split_at(device, 0).reserved == 2 * MIB
    assert _figures.split_at(device, 0).requested == MIB - 100
    assert [share.name for share in _figures.categories_at(device, 0)] == ["from before the recording"]


def test_phases_and_lives_tell_what_blocks_are_for(read):
    device = read(made.small_snapshot()).devices[0]
    told = [(Phase(p).name, Category(c).text) for p, c in zip(device.blocks.phase, device.blocks.category, strict=True)]
    assert told == [
        ("UNKNOWN", "from before the recording"),
        ("SETUP", "parameters"),
        ("FORWARD", "activations"),
        ("FORWARD", "workspaces"),
        ("BACKWARD", "gradients"),
        ("OPTIMIZER", "optimizer state"),
    ]
    names = [device.owners[i] for i in device.blocks.owner]
    assert names[2:] == ["train/model.py:7 forward"] * 2 + ["MmBackward0", "train/main.py:32 <module>"]


@pytest.mark.parametrize(
    ("frames", "owner"),
    [
        ([("forward", "/x/site-packages/torch/nn/modules/linear.py"), ("run", "<string>")], "<string>:1 run"),
        ([("forward", "/x/site-packages/torch/nn/modules/linear.py")], "modules/linear.py:1 forward"),
        ([("__call__", "/x/ebbtide/_marks.py"), ("train", "/x/site-packages/trl/train.py")], "trl/train.py:1 train"),
        ([("at::_ops::mul_Tensor::call(x)", "??"), ("start", "<frozen runpy>")], "mul_Tensor"),
        ([("malloc", "??")], "malloc"),
    ],
)
def test_an_owner_is_the_innermost_line_of_the_program(read, frames, owner):
    stack = [made.frame(name, file) for name, file in frames]
    device = read(made.snapshot([made.entry("alloc", 4096, 10, 1, stack)], [])).devices[0]
    assert [share.name for share in _figures.owners_at(device, 1)] == [owner]


def test_memory_that_waits_for_another_stream_is_counted_apart(read):
    # Of the small snapshot: between free_requested (event 10) and free_completed (event 11).
    split = _figures.split_at(read(made.small_snapshot()).devices[0], 10)
    assert split.waiting == 4 * MIB
    assert sum(size for _, size in split.parts) == split.reserved


def test_expandable_segments_that_touch_are_one(read):
    # GIVEN two mapped ranges side by side, one of them empty, and an apart one
    mapped = [
        made.segment(1 << 30, [(2 * MIB, 2 * MIB, "active_allocated")], is_expandable=True),
        made.segment((1 << 30) + 2 * MIB, [(2 * MIB, 0, "inactive")], is_expandable=True),
        made.segment(1 << 31, [(2 * MIB, 0, "inactive")], is_expandable=True),
    ]
    split = _figures.split_at(read(made.snapshot([], mapped)).devices[0], 0)
    assert (split.stranded, split.cached) == (2 * MIB, 2 * MIB)


def test_a_part_of_a_segment_can_be_given_back(read):
    events = [
        made.Event(made.SEGMENT_TAKEN, 1 << 40, 8 * MIB, detail=1),
        made.Event(made.SEGMENT_GIVEN_BACK, (1 << 40) + 2 * MIB, 2 * MIB, detail=1),
    ]
    device = read(made.trace(events)).devices[0]
    assert _figures.reserved_curve(device).tolist() == [0, 8 * MIB, 6 * MIB]
    begins, sizes = _figures.stretches_at(device, 2)
    assert (begins - (1 << 40)).tolist() == [0, 4 * MIB] and sizes.tolist() == [2 * MIB, 4 * MIB]


def test_names_reach_the_blocks_of_their_thread(read):
    text = "model.layers.0.self_attn.q_proj"
    events = []
    for i in range(0, len(text), 24):
        piece = text[i : i + 24].encode().ljust(24, b"\0")
        address, size, stream = (int.from_bytes(piece[j : j + 8], "little", signed=j == 8) for j in (0, 8, 16))
        length = min(24, len(text) - i)
        events.append(made.Event(made.NAME, address, size, length, device=made.NO_DEVICE, stream=stream, thread=5))
    events += [
        made.Event(made.OWNER, bytes=5, device=made.NO_DEVICE, thread=1),
        made.Event(made.ALLOCATE, 4096, 100, thread=1),
        made.Event(made.ALLOCATE, 8192, 200, thread=2),
        made.Event(made.OWNER, bytes=0, device=made.NO_DEVICE, thread=1),
        made.Event(made.ALLOCATE, 16384, 300, thread=1),
    ]
    (device,) = read(made.trace(events)).devices
    shares = {share.name: share.size for share in _figures.owners_at(device, 3)}
    assert shares == {text: 100, "no module": 500}


def stacked_trace() -> list[made.Event]:
    """Three blocks: two from forward(), by way of different lines of torch, one from nowhere; and a failure."""
    texts = ["/me/train.py:9 main", "/me/model.py:4 forward", "/x/site-packages/torch/nn/functional.py:1 linear",
             "/x/site-packages/torch/nn/functional.py:2 gelu"]  # fmt: skip
    events = [record for number, text in enumerate(texts, 1) for record in made.name(number, text)]
    events += [made.Event(made.FRAME, text, caller, device=made.NO_DEVICE, thread=stack)
               for stack, (text, caller) in enumerate([(1, 0), (2, 1), (3, 2), (4, 2)], 1)]  # fmt: skip

    def enter(stack: int, thread: int = 1) -> made.Event:
        return made.Event(made.STACK, bytes=stack, device=made.NO_DEVICE, thread=thread)

    base = 1 << 40
    return [
        *events,
        enter(3), made.Event(made.ALLOCATE, base, 4 * MIB),
        enter(4), made.Event(made.ALLOCATE, base + 4 * MIB, 2 * MIB),
        made.Event(made.ALLOCATE, base + 6 * MIB, MIB, thread=2),
        made.Event(made.OUT_OF_MEMORY, MIB, 1 << 38),
    ]  # fmt: skip


def test_stacks_reach_the_blocks_of_their_thread_and_every_view(ebbtide, read, tmp_path):
    content = made.trace(stacked_trace())
    (device,) = read(content).devices
    whole = [device.frames_of(int(stack)) for stack in device.blocks.stack]
    assert [len(frames) for frames in whole] == [3, 3, 0]
    assert whole[0] == ("/x/site-packages/torch/nn/functional.py:1 linear", "/me/model.py:4 forward", "/me/train.py:9 main")
    lines = ("me/model.py:4 forward", "me/train.py:9 main")
    (share,) = _figures.program_stacks_at(device, _figures.peak_state(device), 8)
    assert (share.size, share.blocks, share.frames) == (6 * MIB, 2, lines)
    (tmp_path / "a.ebb").write_bytes(content)
    told = ebbtide("report", "a.ebb", "--owners", "--oom", "--html", "a.html")
    assert "  6.00 MiB in 2 blocks, no module, made in unknown\n      me/model.py:4 forward\n      me/train.py:9 main\n" in told
    assert "asked for by no module" in told and told.count("    at me/model.py:4 forward\n    at me/train.py:9 main\n") == 1
    page = (tmp_path / "a.html").read_text()
    assert "me/model.py:4 forward\nme/train.py:9 main</td>" in page
    data = json.loads(page.split('application/json">')[1].split("</script>")[0])["map"]
    assert sorted(data["lines"]) == sorted(lines) and sorted(map(len, data["stacks"])) == [0, 2, 2]
    (json_device,) = json.loads(ebbtide("report", "a.ebb", "--json"))["devices"]
    assert [(s["size"], len(s["frames"])) for s in json_device["peak"]["stacks"]] == [(4 * MIB, 3), (2 * MIB, 3)]
    assert json_device["failures"][0]["frames"][-1] == "/me/train.py:9 main"


def test_a_stack_whose_records_were_lost_is_none(read):
    events = stacked_trace()
    without_frames = [event for event in events if event.action != made.FRAME]
    (device,) = read(made.trace(without_frames)).devices
    assert not device.blocks.stack.any()
    looped = [dataclasses.replace(e, bytes=4) if e.action == made.FRAME else e for e in events if e.action != made.NAME]
    (device,) = read(made.trace(looped)).devices
    assert device.frames_of(int(device.blocks.stack[0])) == ("(its record was lost)",)
    # A damaged record that makes "no stack" a stack ends the walk, too.
    at_zero = [made.Event(made.FRAME, 1, 0, device=made.NO_DEVICE, thread=0), *events]
    (device,) = read(made.trace(at_zero)).devices
    assert len(device.frames_of(int(device.blocks.stack[0]))) == 3


@pytest.mark.parametrize(
    ("frames", "shown"),
    [
        (["libtorch.so+0x1 at::empty", "/me/a.py:1 f", "/x/dist-packages/torch/b.py:2 g"], ["me/a.py:1 f"]),
        (["libtorch.so+0x1 at::empty", "/x/dist-packages/torch/b.py:2 g"], ["torch/b.py:2 g"]),
        (["libtorch_cpu.so+0x1 at::empty", "train+0x7f main", "libc.so.6+0x2 __libc_start_main"], ["train+0x7f main"]),
        (["torch::unwind::unwind()", "at::(anonymous namespace)::f(int)", "at::(anonymous namespace)::f(long)"], ["at::f"]),
        (["libc10.so+0x12"], ["libc10.so+0x12"]),
        (["<string>:3 <module>"], ["<string>:3 <module>"]),
        ([], []),
    ],
)
def test_of_a_stack_the_programs_lines_are_shown(frames, shown):
    assert _stacks.of_program(frames, 8) == shown


def test_the_plan_is_that_of_the_planner_alone(read, ebbtide, tmp_path):
    content = made.small_snapshot()
    device = read(content).devices[0]
    saving = _planned.saving(device, 1.0)
    (tmp_path / "problem.csv").write_bytes(_planned.problem_csv(device))
    alone = json.loads(ebbtide("plan", "problem.csv", "--json"))
    assert saving.plan == alone["height"] >= saving.lower_bound == alone["lower_bound"]
    assert saving.reserved == 24 * MIB and saving.share == pytest.approx(1 - saving.plan / saving.reserved)
    # The whole of what lives at once is a bound of its own.
    assert saving.lower_bound >= _figures.live_curve(device).max()


@pytest.mark.parametrize(("plans", "said"), [(0, "  Ebbtide would have saved: "), (1, "  left to save: ")])
def test_what_a_plan_saved_already_is_not_said_to_be_saved(ebbtide, tmp_path, plans, said):
    events = [*made.random_trace(3), *[made.Event(made.PLAN, bytes=100)] * plans]
    (tmp_path / "run.ebb").write_bytes(made.trace(events))
    assert ebbtide("report", "run.ebb").splitlines()[4].startswith(said)


# Views for programs.


def test_json_says_what_its_document_says(ebbtide, tmp_path):
    (tmp_path / "small.pickle").write_bytes(made.small_snapshot())
    told = json.loads(ebbtide("report", "small.pickle", "--json"))
    assert told["schema"] == "ebbtide.report/2" and told["complete"] and told["engine"] is None
    (device,) = told["devices"]
    assert device["peak_reserved_bytes"] == 24 * MIB
    assert device["timeline"]["live_bytes"] == _figures.live_curve(_reading.read("small.pickle").devices[0]).tolist()
    document = (ROOT / "docs" / "report.md").read_text()

    def keys(value):
        if isinstance(value, dict):
            for key, inner in value.items():
                yield key
                yield from keys(inner)
        elif isinstance(value, list):
            for inner in value[:1]:
                yield from keys(inner)

    unknown = {key for key in keys(told) if f"`{key}`" not in document and key not in {c.text for c in Category}}
    assert not unknown


def test_perfetto_gets_counters_that_sum_to_what_is_alive(read):
    recording = read(made.small_snapshot())
    events = json.loads(_perfetto.render(recording))["traceEvents"]
    counters = [event["args"] for event in events if event.get("name") == "live by category"]
    assert [sum(values.values()) for values in counters] == _figures.live_curve(recording.devices[0]).tolist()
    slices = [(event["name"], event["ts"]) for event in events if event["ph"] == "X"]
    assert [name for name, _ in slices] == ["setup", "forward", "backward", "optimizer"]
    assert slices == sorted(slices, key=lambda slice: slice[1])


@pytest.mark.parametrize("content", [made.small_snapshot(), made.trace(made.busy_trace()), made.rmm_log([("allocate", 4096, 8)])])
def test_perfettos_file_has_the_form_that_its_importer_wants(read, content):
    told = json.loads(_perfetto.render(read(content)))
    assert set(told) == {"displayTimeUnit", "traceEvents"} and told["traceEvents"]
    open_until: dict[tuple[int, int], list[float]] = {}
    for event in told["traceEvents"]:
        assert event["ph"] in ("M", "X", "i", "C") and isinstance(event["name"], str) and isinstance(event["pid"], int)
        if event["ph"] == "M":
            assert event["name"] in ("process_name", "thread_name") and isinstance(event["args"]["name"], str)
            continue
        assert event["ts"] >= 0
        if event["ph"] == "C":
            assert event["args"] and all(isinstance(value, int) and value >= 0 for value in event["args"].values())
        if event["ph"] == "X":
            assert event["dur"] >= 0
            # Slices of one track nest or follow each other: no importer takes those that overlap.
            ends = open_until.setdefault((event["pid"], event["tid"]), [])
            while ends and ends[-1] <= event["ts"]:
                ends.pop()
            assert not ends or event["ts"] + event["dur"] <= ends[-1] + 1e-6
            ends.append(event["ts"] + event["dur"])
