"""CUPTI and swaps in the trace of a real process, on a simulated GPU: with a libcupti made by hand, with torch's, with none;
and with NVIDIA's on a real GPU."""

from __future__ import annotations

import json
import pathlib
import sys

import pytest
from conftest import ROOT, our_lines
from dryrun_run import simulate

np = pytest.importorskip("numpy")
sys.path.insert(0, str(ROOT / "python_shim"))

from ebbtide._reports import _activity, _figures, _reading  # noqa: E402

BEGIN = f"""
sys.path.insert(0, {str(ROOT / "python_shim")!r})
from ebbtide import _autoload
_autoload.init()
"""
FAKE_RECORDS = """
import struct, time
fake = ctypes.CDLL(FAKE) if FAKE else None
name = ctypes.create_string_buffer(b"_Z4gemmPf")
def add(kind, size, fields):
    record = bytearray(size)
    record[:4] = struct.pack("<I", kind)
    for at, form, value in fields:
        struct.pack_into(form, record, at, value)
    fake.fake_cupti_add(bytes(record), ctypes.c_size_t(size))
def add_kernel(begin, end):
    add(10, 216, [(16, "<Q", begin), (24, "<Q", end), (48, "<I", 7), (104, "<Q", ctypes.addressof(name))])
"""
# A model's step, and what the GPU is to have done: a kernel and a copy now, a library's memory, torch's segment.
WORK = FAKE_RECORDS + """
x = torch.empty(4 << 20, dtype=torch.uint8, device="cuda")
if FAKE:
    now = time.monotonic_ns()
    add_kernel(now, now + 1000)
    add(1, 96, [(4, "B", 1), (8, "<Q", 4096), (16, "<Q", now), (24, "<Q", now + 500), (40, "<I", 13)])
    add(49, 128, [(4, "<I", 1), (8, "<I", 3), (16, "<Q", 1 << 50), (24, "<Q", 12 << 20), (32, "<Q", now)])
    fake.fake_cupti_deliver()
y = torch.empty(32 << 20, dtype=torch.uint8, device="cuda")
print(json.dumps([used()]))
"""


@pytest.fixture
def fake(native) -> str:
    path = pathlib.Path(native).parent / "tests" / "libfake_cupti.so"
    if not path.exists():
        pytest.skip("the C++ tests, and with them the fake libcupti, are not built")
    return str(path)


@pytest.fixture
def run(native, tmp_path, monkeypatch):
    monkeypatch.setenv("EBBTIDE_NATIVE_DIR", str(native))

    def run_it(code: str = WORK, fake: str = "", **variables: str):
        given = {
            "EBBTIDE": "observe",
            "EBBTIDE_REPORT": "off",
            "EBBTIDE_NATIVE_DIR": str(native),
            "EBBTIDE_TRACE": str(tmp_path / "run.ebb"),
        }
        return simulate(f"FAKE = {fake!r}\n{BEGIN}{code}", tmp_path, **given | variables)

    return run_it


def test_what_cupti_tells_is_in_the_trace(run, fake, tmp_path):
    done = run(fake=fake, EBBTIDE_CUPTI=fake)
    assert done.answer() and done.stderr == ""
    (device,) = _reading.read(str(tmp_path / "run.ebb")).devices
    activity = device.activity
    assert activity.is_gpu_recorded and activity.lost == 0
    assert [(share.name, share.ns) for share in _activity.works(activity)] == [("gemm(float*)", 1000), ("copy host to device", 500)]
    assert [share.stream for share in _activity.streams(activity.work)] == [7, 13]
    split = _figures.split_at(device, device.states - 1)
    assert split.not_torch == 0 and split.libraries == 0  # the simulated device knows of no library
    assert [share.size for share in _figures.libraries_at(device, device.states - 1)] == [12 << 20]


@pytest.mark.parametrize(
    ("setting", "words"),
    [("/nowhere/libcupti.so", "cannot be loaded"), ("1", "CUPTI")],
    ids=["no library", "torch's own without a driver"],
)
def test_without_it_one_line_is_said_and_the_rest_is_there(run, tmp_path, setting, words):
    done = run(EBBTIDE_CUPTI=setting)
    assert done.answer()
    (line,) = [line for line in done.stderr.splitlines() if "CUPTI" in line]
    assert line.startswith("ebbtide warning EBBTIDE_CUPTI: ") and words in line
    assert line.endswith("going on without kernel and copy times")
    (device,) = _reading.read(str(tmp_path / "run.ebb")).devices
    assert device.activity is None and int(_figures.live_curve(device).max()) == 36 << 20


def test_without_a_trace_it_says_what_is_missing(run, fake):
    done = run(EBBTIDE_CUPTI=fake, EBBTIDE_TRACE="")
    assert "EBBTIDE_CUPTI: it writes to a trace: set EBBTIDE_TRACE=<path>, too" in done.stderr


PRODUCTS = """
import json, torch
a, b = (torch.ones(8192, 8192, dtype=torch.bfloat16, device="cuda") for _ in range(2))
a @ b  # cuBLAS makes itself ready
start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
torch.cuda.synchronize()
start.record()
for _ in range(50):
    a @ b
end.record()
torch.cuda.synchronize()
milliseconds = start.elapsed_time(end)
print(json.dumps(milliseconds))
"""


def assert_products_are_told(trace: pathlib.Path, milliseconds: float) -> None:
    (device,) = _reading.read(str(trace)).devices
    activity = device.activity
    assert activity.is_gpu_recorded and activity.lost == 0
    work = activity.work
    kernels = work.kind == _activity.WorkKind.KERNEL
    assert int(kernels.sum()) >= 51
    # One product more than was timed, and two tensors of ones.
    assert 0.95 < work.length[kernels].sum() / 1e6 / milliseconds < 1.1


def test_kernels_take_as_long_as_events_say(run, fake, tmp_path):
    feed = """
each, now = int(milliseconds * 1e6 / 50), time.monotonic_ns()
for number in range(51):
    add_kernel(now + number * each, now + (number + 1) * each)
fake.fake_cupti_deliver()
"""
    done = run(FAKE_RECORDS + PRODUCTS + feed, fake=fake, EBBTIDE_CUPTI=fake)
    assert done.stderr == ""
    assert_products_are_told(tmp_path / "run.ebb", done.answer())


@pytest.mark.gpu
@pytest.mark.alone
def test_on_a_gpu_kernels_take_as_long_as_events_say(run_python, native, tmp_path):
    trace = tmp_path / "run.ebb"
    done = run_python(
        PRODUCTS, EBBTIDE="observe", EBBTIDE_TRACE=str(trace), EBBTIDE_CUPTI="1", EBBTIDE_REPORT="off",
        EBBTIDE_NATIVE_DIR=str(native),
    )  # fmt: skip
    assert done.returncode == 0 and our_lines(done.stderr) == [], done.stderr
    assert_products_are_told(trace, json.loads(done.stdout))


TRAIN = """
import torch.nn as nn
from transformers import LlamaConfig, LlamaForCausalLM
import ebbtide
config = LlamaConfig(hidden_size=512, intermediate_size=1024, num_hidden_layers=4, num_attention_heads=8,
                     num_key_value_heads=8, vocab_size=512, max_position_embeddings=4096)
model = LlamaForCausalLM(config).to(torch.bfloat16).cuda()
ebbtide.offload(model, alpha=0.5, host="1GiB")
optimizer = torch.optim.SGD(model.parameters())
for step in range(3):
    ids = torch.randint(0, 512, (1, 2048), device="cuda")
    model(input_ids=ids, labels=ids).loss.backward()
    optimizer.step()
    optimizer.zero_grad()
torch.cuda.synchronize()
import dataclasses
from ebbtide._offload._offload_stats import read
(found,) = read().models
print(json.dumps([dataclasses.asdict(found.host), [dataclasses.asdict(layer) for layer in found.layers]]))
"""


def test_swaps_of_offload_agree_with_its_own_numbers(run, tmp_path):
    pytest.importorskip("transformers")
    done = run(TRAIN)
    host, layers = done.answer()
    (device,) = _reading.read(str(tmp_path / "run.ebb")).devices
    activity = device.activity
    totals = _activity.swap_totals(activity)
    assert host["swapped_out_bytes"] > 0
    assert totals.tickets == host["planned_tickets"] + host["unplanned_tickets"]
    assert totals.in_bytes == host["swapped_in_bytes"]
    assert totals.peak_pinned_bytes == host["pinned_bytes"]
    # Copies whose events were read when the numbers were asked for; what is closed later is told, too.
    assert totals.copying_ns >= host["copying_out_ns"] + host["copying_in_ns"] > 0
    told = {share.layer: (share.kept, share.swapped, share.recomputed) for share in _activity.layers(activity)}
    assert {layer["name"]: (layer["kept_bytes"], layer["swapped_bytes"], layer["recomputed_bytes"]) for layer in layers}.items() <= told.items()
    assert set(told) <= {layer["name"] for layer in layers} | {_activity.NO_LAYER}
