"""Preference optimisation: a frozen reference beside the model, pairs of any length, two passes a step."""

import random

import torch
import transformers
from common import DEVICE, steps, update

config = transformers.Qwen2Config(
    vocab_size=64000, hidden_size=2048, intermediate_size=5632, num_hidden_layers=8,
    num_attention_heads=16, num_key_value_heads=4,
)


def causal_model() -> torch.nn.Module:
    return transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).to(DEVICE)


def log_probability(model: torch.nn.Module, ids: torch.Tensor) -> torch.Tensor:
    scores = torch.log_softmax(model(ids).logits.float(), -1)
    return scores.gather(-1, ids[..., None]).sum((1, 2))


training = steps(16)
model, reference = causal_model(), causal_model().eval()
optimizer = torch.optim.AdamW(model.parameters(), 1e-5)
for _ in training:
    for _ in range(2):
        ids = torch.randint(0, 64000, (4, random.randint(400, 2000)), device=DEVICE)
        with torch.no_grad():
            expected = log_probability(reference, ids)
        chosen, rejected = (log_probability(model, ids) - expected).chunk(2)
        (-torch.nn.functional.logsigmoid(chosen - rejected).mean() / 2).backward()
    update(model, optimizer, clip=True)
