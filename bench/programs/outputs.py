"""Llama at one length; a variable of the loop holds logits, keys and values until the next forward has its own."""

import torch
import transformers
from common import DEVICE, steps, update

training = steps(12)
config = transformers.LlamaConfig(
    vocab_size=32000, hidden_size=2048, intermediate_size=7168, num_hidden_layers=12,
    num_attention_heads=16, num_key_value_heads=8,
)
with DEVICE:
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
optimizer = torch.optim.AdamW(model.parameters(), 1e-4)
for _ in training:
    ids = torch.randint(0, 32000, (1, 4096), device=DEVICE)
    outputs = model(input_ids=ids, labels=ids)
    outputs.loss.backward()
    update(model, optimizer)
