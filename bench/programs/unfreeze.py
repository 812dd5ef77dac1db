"""Fine-tuning whose layers are unfrozen from the top as it goes: gradients and states come in midway."""

import random

import torch
import transformers
from common import DEVICE, steps

LAYERS = 16
config = transformers.MistralConfig(
    vocab_size=32000, hidden_size=2560, intermediate_size=6912, num_hidden_layers=LAYERS,
    num_attention_heads=20, num_key_value_heads=4, sliding_window=None,
)
training = steps(24)
with DEVICE:
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
model.requires_grad_(False)
model.lm_head.requires_grad_(True)
optimizer = torch.optim.AdamW(model.lm_head.parameters(), 1e-4)
frozen = list(model.model.layers)
for step in training:
    if step and step % 4 == 0:  # three more layers
        for _ in range(3):
            layer = frozen.pop().requires_grad_(True)
            optimizer.add_param_group({"params": list(layer.parameters()), "lr": 2e-5})
    for _ in range(2):
        ids = torch.randint(0, 32000, (4, random.randint(300, 1500)), device=DEVICE)
        (model(ids, labels=ids, use_cache=False).loss / 2).backward()
    torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], 1.0)
    optimizer.step()
    optimizer.zero_grad()
