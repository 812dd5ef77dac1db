"""An encoder and a decoder, the lengths of both drawn for every step."""

import random

import torch
import transformers
from common import DEVICE, steps, update

config = transformers.T5Config(
    d_model=1024, d_ff=2816, num_layers=12, num_heads=16, d_kv=64,
    feed_forward_proj="gated-gelu", decoder_start_token_id=0,
)
training = steps(25)
model = transformers.T5ForConditionalGeneration(config).to(DEVICE)
optimizer = torch.optim.Adafactor(model.parameters(), 1e-3)
for _ in training:
    ids = torch.randint(0, 30000, (16, random.randint(100, 1024)), device=DEVICE)
    labels = torch.randint(0, 30000, (16, random.randint(20, 256)), device=DEVICE)
    model(input_ids=ids, labels=labels).loss.backward()
    update(model, optimizer)
