"""A plan made by a dry run serves another process's first iteration: what a real GPU would be given."""

from __future__ import annotations

import pytest
from dryrun_run import simulate

pytestmark = pytest.mark.usefixtures("native")

TRAIN = """
import ebbtide
torch.manual_seed(1)
layers = [torch.nn.Linear(2048, 2048, device="cuda") for _ in range(4)]
model = torch.nn.Sequential(*layers)
optimizer = torch.optim.AdamW(model.parameters(), fused=True)
served = []
for step in range(6):
    ebbtide.step()  # or the batch would come before the first forward, and with it before all that is planned
    before = ebbtide.stats("cuda:0")
    loss = model(torch.randn(4096, 2048, device="cuda")).square().mean()
    loss.backward()
    after = ebbtide.stats("cuda:0")
    optimizer.step()
    optimizer.zero_grad()
    asked = after.allocated_bytes - before.allocated_bytes
    served.append(round((after.planned_bytes - before.planned_bytes) / asked, 3))
    ebbtide.wait_for_plans()
now = ebbtide.stats("cuda:0")
print(json.dumps([served, sum(now.divergences.values())]))
"""


def run(folder, native, device, steps=""):
    folder.mkdir()
    return simulate(
        TRAIN,
        folder,
        device=device,
        EBBTIDE="1",
        EBBTIDE_DRYRUN_STEPS=steps,
        EBBTIDE_PLAN=str(folder.parent / "train.plan"),
        EBBTIDE_NATIVE_DIR=str(native),
        EBBTIDE_REPORT="off",
        EBBTIDE_STRICT="1",
        TORCH_DEVICE_BACKEND_AUTOLOAD="1",
    )


def test_the_plan_of_a_dry_run_serves_the_first_iteration_of_a_later_one(tmp_path, native):
    # GIVEN a plan, saved by a run that is ended after a few steps
    first = run(tmp_path / "dry", native, "h200", steps="4")
    plan = tmp_path / "train.plan"
    assert first.status == 0 and first.report["time"]["steps"] == 4, first.stderr
    made = plan.read_bytes()
    # WHEN the program runs on another device of that architecture, as it would on the real one
    served, divergences = run(tmp_path / "later", native, "h100-80g").answer()
    # THEN its first iteration is served as planned, all but cuBLAS's workspaces, which stay for good
    assert served[0] > 0.9 and min(served[1:]) > 0.99, served
    assert divergences == 0 and plan.read_bytes() == made
    # AND without a plan it is not
    plan.unlink()
    served, *_ = run(tmp_path / "without", native, "h100-80g").answer()
    assert served[0] == 0 and served[-1] > 0.99, served


WORKSPACE = """
import ebbtide
torch.zeros(1 << 20, device="cuda")
ebbtide.step()
a = torch.ones(2048, 2048, device="cuda")
b = a @ a
c = torch.ones(8 << 20, device="cuda")
ebbtide.step()
stats = ebbtide.stats("cuda:0")
print(json.dumps([stats.gap_allocations, stats.allocations]))
"""


# Torch asks for so much whatever the device: 32 MiB, as a tensor of the program's is large. A wrong setting it warns of itself.
@pytest.mark.parametrize("config", [":8192:4", "a few"])
def test_workspaces_are_told_by_their_size_and_maker(tmp_path, native, config):
    ran = simulate(
        WORKSPACE, tmp_path, CUBLAS_WORKSPACE_CONFIG=config, EBBTIDE="1", EBBTIDE_REPORT="off", EBBTIDE_NATIVE_DIR=str(native),
        TORCH_DEVICE_BACKEND_AUTOLOAD="1",
    )
    # in gaps: a, b and c; upstream: what was made before the first round, and the workspace
    assert ran.answer() == [3, 5], ran.stderr
