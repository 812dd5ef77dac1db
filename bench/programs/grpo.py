"""Reinforcement: text is generated token by token with a growing cache, then trained on in four passes."""

import random

import torch
import transformers
from common import DEVICE, steps, update

ROWS = 16
config = transformers.Qwen2Config(
    vocab_size=32000, hidden_size=1024, intermediate_size=2816, num_hidden_layers=8,
    num_attention_heads=16, num_key_value_heads=4,
)


def causal_model() -> torch.nn.Module:
    return transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).to(DEVICE)


def generate(model: torch.nn.Module, prompt: int, tokens: int) -> torch.Tensor:
    ids = torch.randint(0, 32000, (ROWS, prompt), device=DEVICE)
    cache = model(ids, use_cache=True).past_key_values
    for _ in range(tokens):
        token = torch.randint(0, 32000, (ROWS, 1), device=DEVICE)
        ids = torch.cat([ids, token], 1)
        model(token, past_key_values=cache, use_cache=True)
    return ids


def log_probabilities(model: torch.nn.Module, ids: torch.Tensor) -> torch.Tensor:
    return torch.log_softmax(model(ids).logits.float(), -1).gather(-1, ids[..., None])


training = steps(12)
model, reference = causal_model(), causal_model().eval()
optimizer = torch.optim.AdamW(model.parameters(), 1e-5)
for _ in training:
    with torch.no_grad():
        ids = generate(model, random.randint(100, 400), random.randint(20, 60))
        expected = log_probabilities(reference, ids)
    for rows in range(0, ROWS, 4):
        gained = log_probabilities(model, ids[rows : rows + 4]) - expected[rows : rows + 4]
        ((gained.exp() - 1 - gained).mean() / 4).backward()
    update(model, optimizer)
