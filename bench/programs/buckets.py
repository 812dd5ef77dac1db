"""GPT-2 over buckets of lengths: full batches, a last smaller one, and an evaluation with batches twice as large."""

import random

import torch
import transformers
from common import DEVICE, steps, update

TOKENS = 8192
config = transformers.GPT2Config(n_embd=1024, n_layer=6, n_head=16, n_positions=2048)
training = steps(24)
model = transformers.GPT2LMHeadModel(config).to(DEVICE)
optimizer = torch.optim.AdamW(model.parameters(), 1e-5)


def loss_of(rows: int, length: int) -> torch.Tensor:
    ids = torch.randint(0, 50000, (rows, length), device=DEVICE)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        return model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=ids).loss


def epoch() -> list[tuple[int, int]]:
    """Rows and length of its batches."""
    batches = []
    for length in (128, 256, 512, 1024):
        rows = TOKENS // length
        left = random.randint(rows, 3 * rows)
        batches += [(min(rows, left - at), length) for at in range(0, left, rows)]
    random.shuffle(batches)
    return batches


batches: list[tuple[int, int]] = []
for step in training:
    if not batches:
        batches = epoch()
        if step:
            model.eval()
            with torch.no_grad():
                for length in (128, 512, 1024):
                    loss_of(2 * TOKENS // length, length)
            model.train()
    loss_of(*batches.pop()).backward()
    update(model, optimizer, clip=True)
