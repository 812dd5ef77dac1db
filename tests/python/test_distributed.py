"""DDP, FSDP2 and torch.compile on a simulated device: what torch counts is the same with Ebbtide, and the plan serves it.
Inductor's kernels cannot run there: they run on CPU tensors."""

from __future__ import annotations

import json

import pytest
from conftest import PROGRAMS
from dryrun_run import simulated_environment

INDUCTOR = """
import json, sys
import torch

torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(256, 512), torch.nn.GELU(), torch.nn.LayerNorm(512), torch.nn.Linear(512, 8))
step = torch.compile(lambda batch: model(batch).square().mean())
optimizer = torch.optim.SGD(model.parameters(), 0.1)
losses = []
for _ in range(6):
    loss = step(torch.randn(64, 256))
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    losses.append(loss.item())
served = "ebbtide" in sys.modules and sys.modules["ebbtide"].is_active() and sys.modules["ebbtide"].stats("cpu").planned_bytes > 0
print(json.dumps([losses, served]))
"""


@pytest.mark.parametrize("case", ("ddp", "fsdp", "compiled"))
def test_torch_counts_what_it_counts_without_ebbtide(run_python, native, tmp_path, case):
    def run(**variables: str) -> dict:
        environment = simulated_environment(tmp_path, capacity="8GiB")
        done = run_python(
            [str(PROGRAMS / "distributed.py"), case],
            **environment, **variables, EBBTIDE_NATIVE_DIR=str(native), EBBTIDE_REPORT="off",
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    without, planned = run(EBBTIDE="0"), run(EBBTIDE="1")
    assert planned["counted"] == without["counted"]
    assert without["served"] is None and planned["served"] > 0.9


def test_inductors_kernels_give_the_same_losses(run_python, native, tmp_path):
    def run(**variables: str) -> list:
        cache = {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "inductor")}
        done = run_python(INDUCTOR, **cache, **variables, EBBTIDE_NATIVE_DIR=str(native), EBBTIDE_REPORT="off")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    losses, served = run(EBBTIDE="1", EBBTIDE_DEVICES="cpu")
    assert served
    assert run(EBBTIDE="0") == [losses, False]
