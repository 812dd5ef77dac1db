"""Lengths that vary, in pieces: one round of a form is enough to plan those of other lengths."""

from __future__ import annotations

import pytest
from dryrun_run import simulate

pytestmark = pytest.mark.usefixtures("native")

# Takes LENGTHS, one for each step.
TRAIN = """
import ebbtide, transformers
config = transformers.LlamaConfig(
    vocab_size=8192, hidden_size=2048, intermediate_size=5632, num_hidden_layers=3, num_attention_heads=16,
    num_key_value_heads=4, max_position_embeddings=1 << 17, use_cache=False)
torch.set_default_dtype(torch.bfloat16)
with torch.device("meta"):
    model = transformers.LlamaForCausalLM(config)
model = model.to_empty(device="cuda")
ebbtide.offload(model, alpha=0.5, host="64GiB")
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
served = []
for length in LENGTHS:
    ids = torch.zeros(1, length, dtype=torch.long, device="cuda")
    before = ebbtide.stats("cuda:0")
    model(input_ids=ids, labels=ids).loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    after = ebbtide.stats("cuda:0")
    ebbtide.wait_for_plans()
    asked = after.allocated_bytes - before.allocated_bytes
    served.append((after.planned_bytes - before.planned_bytes) / asked)
del ids
arena = max(torch.cuda.memory_snapshot(), key=lambda segment: segment["total_size"])
now = ebbtide.stats("cuda:0")
print(json.dumps([served, arena["active_size"], arena["total_size"], now.arena_bytes, now.plan_height_bytes]))
"""


def train(tmp_path, native, lengths):
    pytest.importorskip("transformers")
    return simulate(
        f"LENGTHS = {lengths}\n{TRAIN}",
        tmp_path,
        device="h200",
        EBBTIDE="1",
        EBBTIDE_NATIVE_DIR=str(native),
        EBBTIDE_REPORT="off",
        TORCH_DEVICE_BACKEND_AUTOLOAD="1",
        TRANSFORMERS_VERBOSITY="error",
    ).answer()


def test_after_one_round_of_a_form_other_lengths_are_served_as_planned(tmp_path, native):
    """Two pieces each, whose lengths are in no fixed proportion to the input's; the shortest comes behind a longer one."""
    served, *_ = train(tmp_path, native, [70001, 90000, 66999, 123456])
    assert served[0] == 0 and min(served[1:]) > 0.95, served


def test_workspaces_of_libraries_do_not_lie_in_the_arena(tmp_path, native):
    """They stay for good: a plan would have to go around them. And the second round takes no more than it needs."""
    _, active, total, arena, height = train(tmp_path, native, [30000, 30000])
    assert total == arena and active == 0
    assert height <= arena < 1.1 * height
