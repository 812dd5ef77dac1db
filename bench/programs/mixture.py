"""A mixture of experts with checkpointing: how many tokens go to an expert is never the same."""

import random

import torch
import transformers
from common import DEVICE, steps, update

config = transformers.MixtralConfig(
    vocab_size=32000, hidden_size=2048, intermediate_size=4096, num_hidden_layers=6,
    num_attention_heads=16, num_key_value_heads=8, num_local_experts=8,
)
training = steps(15)
model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).to(DEVICE)
model.gradient_checkpointing_enable()
optimizer = torch.optim.AdamW(model.parameters(), 1e-5)
for _ in training:
    ids = torch.randint(0, 32000, (2, random.randint(1000, 8000)), device=DEVICE)
    model(input_ids=ids, labels=ids).loss.backward()
    update(model, optimizer)
