"""What a dry run takes for a step: replayed graphs, optimizers that are not torch's operators, gradients added up."""

from __future__ import annotations

import os

import pytest
from dryrun_run import ROOT, simulate

MODEL = """
model = torch.nn.Sequential(torch.nn.Linear(512, 512), torch.nn.GELU(), torch.nn.Linear(512, 512)).cuda()
x = torch.empty(256, 512, device="cuda")
"""
FORWARD_FLOPS = 2 * 2 * 256 * 512**2


def steps_of(code: str, tmp_path, **variables: str) -> dict:
    done = simulate(MODEL + code, tmp_path, **variables)
    assert done.status == 0, done.stderr
    return done.report["time"]


WHOLE_STEP = """
optimizer = torch.optim.Adam(model.parameters(), capturable=True)
def step():
    optimizer.zero_grad()
    model(x).sum().backward()
    optimizer.step()
side = torch.cuda.Stream()
with torch.cuda.stream(side):
    step()
torch.cuda.current_stream().wait_stream(side)
graph = torch.cuda.CUDAGraph()
with torch.cuda.graph(graph):
    step()
for _ in range(9):
    graph.replay()
    torch.cuda.synchronize()
"""


def test_each_launch_of_a_captured_step_is_one(tmp_path):
    time = steps_of(WHOLE_STEP, tmp_path)
    assert time["steps"] == 10
    assert time["forward_flops"] == pytest.approx(FORWARD_FLOPS)
    ended = steps_of(WHOLE_STEP + "raise SystemExit(1)", tmp_path, EBBTIDE_DRYRUN_STEPS="4")
    assert ended["steps"] == 4


def test_captured_passes_are_parts_of_their_steps(tmp_path):
    time = steps_of(
        """
optimizer = torch.optim.SGD(model.parameters(), 0.1)
graphed = torch.cuda.make_graphed_callables(model, (x,))
for _ in range(5):
    graphed(x).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
""",
        tmp_path,
    )
    assert time["steps"] == 5
    assert time["forward_flops"] == pytest.approx(FORWARD_FLOPS)


# Two passes a step. A kernel outside of all operators is what a compiled optimizer, or bitsandbytes', shows.
LOOP = """
weights = [weight.detach() for weight in model.parameters()]
optimizer = torch.optim.SGD(model.parameters(), 0.1)
apart = [torch.empty(4, device="cuda") for _ in range(2)]
for _ in range(4):
    for _ in range(2):
        with torch.no_grad():
            {before}
        model(x).sum().backward()
    with torch.no_grad():
        {update}
    for weight in model.parameters():
        weight.grad = None
"""
GATHERED = "torch._foreach_copy_(apart, apart); torch.split_with_sizes_copy(x[0, :8], [4, 4], out=apart)"


@pytest.mark.parametrize(
    ("before", "update", "steps"),
    [
        ("pass", "torch.cuda._sleep(1)", 4),
        # One too many: what the program's updates are like is not known before its first.
        ("torch.relu_(x); torch.cuda._sleep(1)", "optimizer.step()", 5),
        (GATHERED, "torch._foreach_mul_(weights, 0.9)", 4),
    ],
    ids=["kernels_of_others", "frozen_layers", "gathered_weights"],
)
def test_an_update_ends_a_step_and_little_else_does(tmp_path, before, update, steps):
    assert steps_of(LOOP.format(before=before, update=update), tmp_path)["steps"] == steps


def test_an_optimizer_on_the_host_ends_steps(tmp_path):
    time = steps_of(
        f"""
sys.path.insert(0, {str(ROOT / "python_shim")!r})
from ebbtide import _updates
_updates.install()
masters = [torch.zeros(weight.shape).requires_grad_() for weight in model.parameters()]
optimizer = torch.optim.AdamW(masters)
for _ in range(4):
    for _ in range(2):
        model(x).sum().backward()
    for master, weight in zip(masters, model.parameters()):
        master.grad, weight.grad = weight.grad.cpu(), None
    optimizer.step()
    for master, weight in zip(masters, model.parameters()):
        weight.data = master.detach().cuda()
""",
        tmp_path,
        EBBTIDE_NATIVE_DIR=os.environ.get("EBBTIDE_NATIVE_DIR", ""),
    )
    assert time["steps"] == 4


def test_tokens_are_those_of_one_table_however_many_are_alike(tmp_path):
    time = steps_of(
        """
tables = torch.nn.ModuleList(torch.nn.Embedding(64, 512) for _ in range(3)).cuda()
optimizer = torch.optim.SGD([*model.parameters(), *tables.parameters()], 0.1)
for _ in range(3):
    labels = torch.zeros(256, dtype=torch.int64, device="cuda")
    model(sum(table(labels) for table in tables)).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
""",
        tmp_path,
    )
    assert time["step_tokens"] == 256
