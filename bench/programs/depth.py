"""Stochastic depth: each layer is left out now and then, for a whole batch; losses at layers that are drawn."""

import random

import torch
from common import DEVICE, steps, update
from torch import nn

WIDTH, WORDS, LAYERS = 1024, 32000, 12


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, WIDTH)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(WIDTH, 16, 4 * WIDTH, batch_first=True, norm_first=True)
            for _ in range(LAYERS)
        )
        self.head = nn.Linear(WIDTH, WORDS, bias=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        hidden = self.words(ids)
        loss = hidden.float().mean()
        exits = {random.randrange(LAYERS - 1), LAYERS - 1}
        for number, layer in enumerate(self.layers):
            if random.random() < 0.2 * number / LAYERS:
                continue
            hidden = layer(hidden)
            if number in exits:
                scores = self.head(hidden).float().flatten(0, 1)
                loss = loss + nn.functional.cross_entropy(scores, ids.flatten())
        return loss


training = steps(24)
model = Model().to(DEVICE)
optimizer = torch.optim.AdamW(model.parameters(), 1e-4)
for _ in training:
    ids = torch.randint(0, WORDS, (12, random.randint(256, 1024)), device=DEVICE)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        loss = model(ids)
    loss.backward()
    update(model, optimizer, clip=True)
