"""Early exit: the pass stops at a drawn layer, every exit on the way has a loss of its own."""

import random

import torch
from common import DEVICE, steps, update
from torch import nn

WIDTH, LAYERS, VOCABULARY = 2048, 16, 32000
training = steps(25)
embed = nn.Embedding(VOCABULARY, WIDTH)
layers = nn.ModuleList(
    nn.TransformerEncoderLayer(WIDTH, 16, 4 * WIDTH, 0.1, batch_first=True, norm_first=True) for _ in range(LAYERS)
)
norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(LAYERS))
head = nn.Linear(WIDTH, VOCABULARY, bias=False)
model = nn.ModuleList([embed, layers, norms, head]).to(DEVICE, torch.bfloat16)
optimizer = torch.optim.AdamW(model.parameters(), 1e-4)
for _ in training:
    ids = torch.randint(0, VOCABULARY, (8, random.randint(128, 768)), device=DEVICE)
    mask = nn.Transformer.generate_square_subsequent_mask(ids.shape[1], device=DEVICE, dtype=torch.bfloat16)
    last = random.randint(3, LAYERS)
    x, losses = embed(ids), []
    for number in range(last):
        x = layers[number](x, mask, is_causal=True)
        if number % 4 == 3 or number == last - 1:
            logits = head(norms[number](x)).flatten(0, 1).float()
            losses.append(nn.functional.cross_entropy(logits, ids.flatten()) * (number + 1))
    torch.stack(losses).mean().backward()
    update(model, optimizer, clip=True)
