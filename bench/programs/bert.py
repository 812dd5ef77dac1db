"""Masked language modelling: a fixed number of tokens in rows of several lengths, evaluation between."""

import random

import torch
import transformers
from common import DEVICE, steps, update

TOKENS = 16384
config = transformers.BertConfig(
    hidden_size=1024, num_hidden_layers=16, num_attention_heads=16, intermediate_size=4096,
    max_position_embeddings=2048,
)
training = steps(30)
model = transformers.BertForMaskedLM(config).to(DEVICE)
optimizer = torch.optim.AdamW(model.parameters(), 1e-5)
for step in training:
    length = random.choice([128, 256, 384, 512, 640, 777, 1024])
    ids = torch.randint(0, 30000, (TOKENS // length, length), device=DEVICE)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        loss = model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=ids).loss
    loss.backward()
    update(model, optimizer, clip=True)
    if step % 10 == 9:
        model.eval()
        with torch.no_grad():
            for _ in range(5):
                ids = torch.randint(0, 30000, (32, random.choice([200, 300, 400])), device=DEVICE)
                model(input_ids=ids).logits.argmax(-1)
        model.train()
