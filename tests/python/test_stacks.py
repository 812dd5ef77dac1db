"""Stacks of allocations in the trace of a real process, and in its report of an out-of-memory error; on a simulated GPU."""

from __future__ import annotations

import sys

import pytest
from conftest import ROOT
from dryrun_run import simulate

np = pytest.importorskip("numpy")
sys.path.insert(0, str(ROOT / "python_shim"))

from ebbtide._reports import _figures, _reading, _stacks  # noqa: E402

TRAIN = """
import torch
from ebbtide import _autoload
_autoload.init()
import concurrent.futures, os

class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = torch.nn.Linear(2048, 2048)
    def forward(self, x):
        return torch.relu(self.inner(x))

def build():
    return Model().cuda()

def train(model, optimizer):
    model(torch.ones(2048, 2048, device="cuda")).sum().backward()
    optimizer.step()
    optimizer.zero_grad()

def in_a_thread(size):
    return torch.empty(size << 20, dtype=torch.uint8, device="cuda")

def ask_for_too_much():
    return torch.empty(1 << 40, dtype=torch.uint8, device="cuda")

def fails():
    try:
        return ask_for_too_much()
    except torch.OutOfMemoryError:
        return None

model = build()
optimizer = torch.optim.AdamW(model.parameters())
for _ in range(6):
    train(model, optimizer)
held = in_a_thread(300)
# Threads that run Python and allocate have stacks of their own.
with concurrent.futures.ThreadPoolExecutor(4) as pool:
    kept = list(pool.map(in_a_thread, [40 + i % 3 for i in range(64)]))
# An exception on its way is not disturbed, and a forked child leaves the trace alone.
class Allocates:
    def __del__(self):
        in_a_thread(50)
try:
    it = Allocates()
    del it
    raise KeyError("passes")
except KeyError as error:
    assert error.args == ("passes",)
child = os.fork()
if child == 0:
    torch.ones(4096)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
assert fails() is None
print(json.dumps(torch.cuda.memory_stats()["requested_bytes.all.current"]))
"""


@pytest.fixture(scope="module")
def run(native, tmp_path_factory):
    folder = tmp_path_factory.mktemp("stacks")
    (folder / "train.py").write_text(TRAIN)
    done = simulate(
        f"exec(compile(open({str(folder / 'train.py')!r}).read(), {str(folder / 'train.py')!r}, 'exec'))",
        folder,
        EBBTIDE="1",
        EBBTIDE_TRACE=str(folder / "run.ebb"),
        EBBTIDE_TRACE_STACKS="all",
        EBBTIDE_REPORT="off",
        EBBTIDE_OOM=str(folder / "oom.txt"),
        EBBTIDE_NATIVE_DIR=str(native),
        PYTHONPATH=str(ROOT / "python_shim"),
    )
    recording = _reading.read(str(folder / "run.ebb"))
    return folder, recording, done.answer()


def functions_of(share):
    return [frame.rsplit(" ", 1)[-1] for frame in _stacks.of_program(share.frames, 8)]


def test_every_block_of_the_program_has_the_lines_that_made_it(run):
    _, recording, requested = run
    (device,) = recording.devices
    assert recording.lost_events == 0
    assert (device.blocks.stack > 0).all()
    state = device.states - 1
    shares = _figures.stacks_at(device, state)
    assert sum(share.size for share in shares) == requested == _figures.split_at(device, state).requested
    functions = {tuple(functions_of(share)[:2]): share for share in shares}
    assert ("build", "<module>") in functions
    assert functions[("in_a_thread", "<module>")].size == 300 << 20
    # A pool's threads begin in the standard library.
    of_threads = [share.size for share in shares if any("concurrent/futures" in frame for frame in share.frames)]
    assert sum(of_threads) == sum((40 + i % 3) << 20 for i in range(64))


def test_phases_owners_and_stacks_go_together(run):
    _, recording, _ = run
    (device,) = recording.devices
    told = {(share.owner, share.phase): share for share in _figures.stacks_at(device, _figures.peak_state(device))}
    # At the peak of a step, of the last of the run: what the model itself holds.
    assert {"setup", "optimizer"} <= {phase for _, phase in told}
    blocks = device.blocks
    inner = np.flatnonzero(np.array(device.owners)[blocks.owner] == "inner")
    assert len(inner) >= 6
    for block in inner.tolist():
        frames = device.frames_of(int(blocks.stack[block]))
        assert any(frame.endswith("Model.forward") or frame.endswith(" forward") for frame in frames), frames
        # C++ first, then Python, with nothing of the adaptor and nothing of the interpreter between them.
        kinds = ["+0x" in frame.split(" ")[0] for frame in frames]
        assert kinds == sorted(kinds, reverse=True) and kinds[0]
        assert not any("libebbtide_torch" in frame or frame.startswith(("python", "libpython")) for frame in frames)
    of_backward = np.flatnonzero(blocks.phase == 3)
    assert len(of_backward) and all("+0x" in device.frames_of(int(blocks.stack[i]))[0] for i in of_backward.tolist())


def test_a_stack_costs_no_more_than_the_issue_allows(run):
    folder, recording, _ = run
    (device,) = recording.devices
    # Even of a run this short, where every stack is new.
    assert (folder / "run.ebb").stat().st_size / len(device.blocks) < 1000


def test_the_report_of_the_failure_names_the_lines(run):
    folder, _, _ = run
    text = (folder / "oom.txt").read_text()
    asked = text.split("Asked for: ")[1].split("Why it does not fit")[0]
    assert [line.rsplit(" ", 1)[1] for line in asked.splitlines()[1:4]] == ["ask_for_too_much", "fails", "<module>"], asked
    table = text.split("Live blocks, the largest first:\n")[1]
    first = table.splitlines()[:3]
    assert "300.00 MiB" in first[0] and first[1].endswith("in_a_thread") and first[2].endswith("<module>"), first


def test_without_a_trace_it_says_what_is_missing(run_python, native):
    done = run_python(
        f"import ctypes; assert ctypes.CDLL({str(native / 'libebbtide.so')!r}).ebbtide_check_settings() == 0",
        EBBTIDE="1", EBBTIDE_TRACE_STACKS="python",
    )  # fmt: skip
    assert done.returncode == 0
    assert done.stderr == "ebbtide warning EBBTIDE_TRACE_STACKS: stacks are part of a trace: set EBBTIDE_TRACE=<path>, too\n"
