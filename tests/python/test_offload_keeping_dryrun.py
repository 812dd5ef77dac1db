"""alpha="auto" where a device has room, in virtual time: layers keep what they save, and nothing waits or runs out of memory."""

from __future__ import annotations

import json

import pytest
from dryrun_run import ROOT
import test_offload_auto_dryrun as auto
from test_offload_auto_dryrun import train

pytestmark = pytest.mark.usefixtures("native")

STEPS = auto.STEPS + """
def told():
    found = ebbtide.stats().offload.models[-1]
    return {"kept": found.kept_layers, "alpha": found.alpha, "limit": found.limit, "live": torch.cuda.max_memory_allocated()}
"""

BESIDE_PLAIN = STEPS + """
plain = last_step(3)
ebbtide.offload(model, host="128GiB")
print(json.dumps({"plain": plain, "offloaded": last_step(24), **told()}))
"""


def with_slow_link(device, tmp_path):
    """The device's file with a quarter of its link to the host."""
    facts = json.loads((ROOT / "dryrun" / "devices" / f"{device}.json").read_text())
    facts["host_link"]["to_host"] /= 4
    facts["host_link"]["to_device"] /= 4
    (tmp_path / "slow.json").write_text(json.dumps(facts))
    return str(tmp_path / "slow.json")


def stalled(done):
    """The part of the last step that it stood still."""
    time = done.report["time"]
    return time["each_step_stalled_seconds"][-1] / time["each_step_seconds"][-1]


# Other layers of the same width, by what is different in the program's text.
FUSED = ("", "")
EAGER = ("use_cache=False", 'use_cache=False, attn_implementation="eager"')
RUNS_WHOLE = ("Llama", "DiffLlama")


@pytest.mark.parametrize(
    ("device", "length", "layer"),
    [("h200", 16384, FUSED), ("l40s", 8192, FUSED), ("h200", 4096, EAGER), ("l40s", 4096, RUNS_WHOLE)],
)
def test_where_all_fits_a_step_takes_as_long_as_without_offload(tmp_path, native, device, length, layer):
    done = train(f"LAYERS, LENGTH = 3, {length}" + BESIDE_PLAIN.replace(*layer), tmp_path, native, device, "0")
    told = done.answer()
    assert (told["kept"], told["limit"]) == (3, "") and told["offloaded"] <= 1.01 * told["plain"]


BESIDE_NOTHING_KEPT = STEPS + """
ebbtide.offload(model, alpha=0, host="128GiB")
recomputed = last_step(3)
torch.cuda.reset_peak_memory_stats()
ebbtide.offload(model, host="128GiB")
print(json.dumps({"recomputed": recomputed, "offloaded": last_step(64), **told()}))
"""


@pytest.mark.parametrize(("device", "length", "most"), [("h200", 8192, 4), ("l40s", 32768, 3)])
def test_a_link_that_is_too_slow_is_not_waited_for(tmp_path, native, device, length, most):
    slow = with_slow_link(device, tmp_path)
    done = train(f"LAYERS, LENGTH = 4, {length}" + BESIDE_NOTHING_KEPT, tmp_path, native, slow, "0")
    told = done.answer()
    assert 2 <= told["kept"] <= most and told["offloaded"] < 0.97 * told["recomputed"]
    assert stalled(done) <= 0.01


@pytest.mark.parametrize(("device", "length", "layer"), [("l40s", 5632, EAGER), ("a100-40g", 30720, RUNS_WHOLE)])
def test_where_some_fits_less_is_made_again_than_with_nothing_kept(tmp_path, native, device, length, layer):
    code = f"LAYERS, LENGTH = 4, {length}" + BESIDE_NOTHING_KEPT.replace(*layer)
    done = train(code, tmp_path, native, device, "0")
    told = done.answer()
    assert 2 <= told["kept"] and told["offloaded"] < 0.95 * told["recomputed"]
    assert stalled(done) <= 0.01


LONGER = STEPS + """
ebbtide.offload(model, host="128GiB")
last_step(12)
kept = told()["kept"]
long = torch.zeros(1, 65536, dtype=torch.long, device="cuda")
last_step(2, long)
print(json.dumps({**told(), "kept": kept, "retries": torch.cuda.memory_stats()["num_alloc_retries"]}))
"""


def test_a_longer_sequence_fits_as_it_would_have_without(tmp_path, native):
    # GIVEN a device that holds 4 layers of 4K tokens with all that they save, and nothing like that of 64K
    told = train("LAYERS, LENGTH = 4, 4096" + LONGER, tmp_path, native, "rtx4090", "0").answer()
    assert told["kept"] == 4 and told["retries"] == 0 and told["live"] < 22 << 30


BUCKETS = STEPS + """
ebbtide.offload(model, host="128GiB")
last_step(16, torch.zeros(8, 512, dtype=torch.long, device="cuda"))
kept = told()["kept"]
last_step(2, torch.zeros(1, 4096, dtype=torch.long, device="cuda"))
print(json.dumps({**told(), "kept": kept, "retries": torch.cuda.memory_stats()["num_alloc_retries"]}))
"""


def test_as_many_tokens_in_one_long_sequence_fit_as_they_would_have_without(tmp_path, native):
    """A batch of short ones keeps all scores, of which a long one has eight times as many."""
    told = train("LAYERS, LENGTH = 6, 4096" + BUCKETS.replace(*EAGER), tmp_path, native, "rtx4090", "0").answer()
    assert told["kept"] == 6 and told["retries"] == 0


COPIED = STEPS + """
import copy
ebbtide.offload(model, host="128GiB")
averages = []
for steps in (1, 3, 20):
    last_step(steps)
    averages.append(torch.optim.swa_utils.AveragedModel(model))
copied = copy.deepcopy(model)
del averages
last_step(12)
kept = ebbtide.stats().offload.models[0].kept_layers
model, first = copied, model
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
last_step(12)
calls = ebbtide.stats().offload.models[-1].layers[0].calls
print(json.dumps({"kept": kept, "calls": calls}))
"""


def test_a_model_is_copied_at_any_step(tmp_path, native):
    told = train("LAYERS, LENGTH = 2, 2048" + COPIED, tmp_path, native, "h200", "0").answer()
    # THEN it goes on as it was, and the copy trains as a model of its own
    assert told["kept"] == 2 and 0 < told["calls"] <= 12


PEAK_RESET = STEPS + """
ebbtide.offload(model, host="128GiB")
optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
most = 0
for _ in range(40):
    torch.cuda.reset_peak_memory_stats()
    last_step(1)
    most = max(most, torch.cuda.max_memory_allocated())
print(json.dumps({**told(), "most": most, "retries": torch.cuda.memory_stats()["num_alloc_retries"]}))
"""


def test_a_program_that_resets_the_peak_before_each_step_keeps_no_more_than_fits(tmp_path, native):
    told = train("LAYERS, LENGTH = 5, 16384" + PEAK_RESET, tmp_path, native, "a100-40g", "0").answer()
    assert told["kept"] >= 2 and told["retries"] == 0 and told["most"] < 34 << 30


LATE_STATES = STEPS + """
ebbtide.offload(model, host="128GiB")
optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
kept = []
for _ in range(10):
    for _ in range(6):
        model(input_ids=ids, labels=ids).loss.backward()
        kept.append(told()["kept"])
    optimizer.step()
    optimizer.zero_grad()
print(json.dumps({**told(), "all": kept, "retries": torch.cuda.memory_stats()["num_alloc_retries"]}))
"""


def test_an_optimizer_that_steps_late_finds_room_for_its_states(tmp_path, native):
    told = train("LAYERS, LENGTH = 4, 8192" + LATE_STATES, tmp_path, native, "rtx4090", "0").answer()
    # THEN nothing is kept in the room of its states, and what is kept once they are there fits beside them
    assert told["retries"] == 0 and not any(told["all"][:6]) and told["kept"] > 0


PLANNED = STEPS + """
ebbtide.offload(model, host="128GiB")
for _ in range(40):
    before = ebbtide.stats("cuda:0")
    last_step(1)
    after = ebbtide.stats("cuda:0")
    ebbtide.wait_for_plans()
plan = ebbtide.stats().offload.models[-1].plan
served = (after.planned_bytes - before.planned_bytes) / (after.allocated_bytes - before.allocated_bytes)
print(json.dumps({**told(), "plan": [plan.height_bytes, plan.budget_bytes], "served": served, "held": device.ebbtide_dryrun_peak(0),
                  "retries": torch.cuda.memory_stats()["num_alloc_retries"]}))
"""


def test_a_nearly_full_device_is_served_from_a_plan_that_fits(tmp_path, native):
    done = train("LAYERS, LENGTH = 5, 28672" + PLANNED, tmp_path, native, "a100-40g", "1")
    told = done.answer()
    assert 1 < told["kept"] < 5 and told["plan"][0] <= told["plan"][1]
    assert told["served"] > 0.97 and told["retries"] == 0 and stalled(done) <= 0.01
    # AND most of the device is put to use
    assert told["live"] > 25 << 30 and told["held"] < 1.05 * told["live"]
