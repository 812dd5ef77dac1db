"""MFU counts a training step's own forward pass: not an optimizer's products, not an evaluation."""

from __future__ import annotations

import pytest
from dryrun_run import simulate

PROGRAM = """
import torch.utils.checkpoint
model = torch.nn.Sequential(*(torch.nn.Linear(1024, 1024, bias=False) for _ in range(4))).cuda()
optimizer = {optimizer}
checkpoint = torch.utils.checkpoint.checkpoint
for _ in range(4):
    x = model[0](torch.empty(512, 1024, device="cuda"))
    {forward}
    x.sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    {behind}
print("null")
"""
PLAIN = "x = model[1:](x)"
EVALUATION = "with torch.no_grad(), torch.autocast('cuda', torch.bfloat16): model(x.detach())"


@pytest.mark.parametrize(
    ("optimizer", "forward", "behind"),
    [
        ("torch.optim.SGD(model.parameters(), 0.1)", PLAIN, ""),
        ("torch.optim.Muon(model.parameters())", PLAIN, ""),
        ("torch.optim.SGD(model.parameters(), 0.1)", "x = checkpoint(model[1:], x, use_reentrant=True)", ""),
        ("torch.optim.SGD(model.parameters(), 0.1)", "x = checkpoint(model[1:], x, use_reentrant=False)", ""),
        ("torch.optim.SGD(model.parameters(), 0.1)", PLAIN, "torch.no_grad()(model)(x)"),
        ("torch.optim.SGD(model.parameters(), 0.1)", PLAIN, EVALUATION),
    ],
)
def test_forward_operations_are_those_of_the_model_once(tmp_path, optimizer, forward, behind):
    done = simulate(PROGRAM.format(optimizer=optimizer, forward=forward, behind=behind), tmp_path)
    done.answer()
    assert done.report["time"]["forward_flops"] == pytest.approx(4 * 2 * 512 * 1024**2)


def test_compiled_micro_batches_are_one_step(tmp_path):
    done = simulate(
        """
from torch._dynamo.backends.common import aot_autograd
from functorch.compile import make_boxed_func
model = torch.nn.Sequential(*(torch.nn.Linear(1024, 1024, bias=False) for _ in range(4))).cuda()
optimizer = torch.optim.SGD(model.parameters(), 0.1)
scratch = torch.empty(8, device="cuda")

def with_writing(graph, _):  # as code of inductor's does
    def run(*tensors):
        scratch.mul_(2)
        return graph(*tensors)
    return make_boxed_func(run)

compiled = torch.compile(model, backend=aot_autograd(fw_compiler=with_writing))
for _ in range(3):
    for _ in range(2):
        (compiled(torch.empty(512, 1024, device="cuda")).sum() / 2).backward()
    optimizer.step()
    optimizer.zero_grad()
print("null")
""",
        tmp_path,
    )
    done.answer()
    time = done.report["time"]
    assert time["steps"] == 3
    assert time["forward_flops"] == pytest.approx(2 * 4 * 2 * 512 * 1024**2)


def test_replicas_on_several_devices_share_a_batch_and_their_peaks(tmp_path):
    program = """
model = torch.nn.Sequential(*(torch.nn.Linear(4096, 4096, bias=False) for _ in range(4))).cuda()
model = torch.nn.DataParallel(model)  # one device: the model itself
optimizer = torch.optim.SGD(model.parameters(), 0.1)
for _ in range(3):
    out = model(torch.empty(4096 * torch.cuda.device_count(), 4096, device="cuda"))
    out.sum().backward()
    optimizer.step()
    optimizer.zero_grad()
print(json.dumps([list(out.shape), all(weight.grad is None for weight in model.parameters())]))
"""
    alone, together = (simulate(program, tmp_path, count=count) for count in (1, 4))
    assert (alone.answer(), together.answer()) == ([[4096, 4096], True], [[16384, 4096], True])
    first, second = alone.report["time"], together.report["time"]
    assert second["forward_flops"] == pytest.approx(4 * first["forward_flops"])
    assert 0.3 * first["mfu"] < second["mfu"] < first["mfu"]
    assert second["collectives"] > 0
