"""A dry run finds out, as a device would, that a part of a model does not run in pieces."""

from __future__ import annotations

import os

import pytest
from dryrun_run import ROOT, simulate

pytestmark = pytest.mark.usefixtures("native", "needs_transformers")

OWN_LOSS = """
import ebbtide
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.modeling_outputs import CausalLMOutputWithPast

class OwnLoss(LlamaForCausalLM):
    def forward(self, input_ids, labels=None, **kwargs):
        logits = self.lm_head(self.model(input_ids, **kwargs).last_hidden_state)
        chosen = torch.ones(labels[:, 1:].shape, dtype=torch.bool, device=labels.device)
        loss = torch.nn.functional.cross_entropy(logits[:, :-1][chosen], labels[:, 1:][chosen])
        return CausalLMOutputWithPast(loss=loss, logits=logits)

with torch.device("cuda"):
    model = OwnLoss(LlamaConfig(vocab_size=1000, hidden_size=128, intermediate_size=256, num_hidden_layers=2,
                                num_attention_heads=2, num_key_value_heads=2))
before = reads()
ebbtide.offload(model.train())
answer = [reads() - before]
ids = torch.zeros(2, 64, dtype=torch.int64, device="cuda")
model(input_ids=ids, labels=ids).loss.backward()
print(json.dumps([*answer, model.lm_head.weight.grad is not None]))
"""


def test_a_class_that_computes_its_own_loss_keeps_it_whole(tmp_path):
    done = simulate(
        OWN_LOSS,
        tmp_path,
        PYTHONPATH=str(ROOT / "python_shim"),
        EBBTIDE_NATIVE_DIR=os.environ.get("EBBTIDE_NATIVE_DIR", ""),
    )
    assert done.answer() == [0, True]  # what is compared elsewhere is not read here
    assert "offload: head and loss of OwnLoss stay whole: over pieces, " in done.stderr
