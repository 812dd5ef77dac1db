"""Documents in one row without padding: their number and lengths differ, so does the sum; float32 masters."""

import random

import torch
from common import DEVICE, steps, update
from torch import nn
from torch.nn.functional import cross_entropy, scaled_dot_product_attention

WIDTH, HEADS, LAYERS, VOCABULARY = 2048, 16, 12, 50000


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.LayerNorm(WIDTH) for _ in range(2)])
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))

    def forward(self, hidden: torch.Tensor, lengths: list[int]) -> torch.Tensor:
        qkv = self.qkv(self.norms[0](hidden)).unflatten(-1, (3, HEADS, WIDTH // HEADS))
        attended = []
        for document in qkv.split(lengths):
            q, k, v = document.permute(1, 2, 0, 3).unsqueeze(1)
            attended.append(scaled_dot_product_attention(q, k, v, is_causal=True)[0])
        hidden = hidden + self.out(torch.cat([a.transpose(0, 1).flatten(1) for a in attended]))
        return hidden + self.mlp(self.norms[1](hidden))


training = steps(20)
embed, head = nn.Embedding(VOCABULARY, WIDTH), nn.Linear(WIDTH, VOCABULARY, bias=False)
layers = nn.ModuleList([Layer() for _ in range(LAYERS)])
model = nn.ModuleList([embed, layers, head]).to(DEVICE)
optimizer = torch.optim.AdamW(model.parameters(), 1e-4, fused=True)
for _ in training:
    lengths = [random.randint(200, 6000) for _ in range(random.randint(2, 6))]
    ids = torch.randint(0, VOCABULARY, (sum(lengths),), device=DEVICE)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        hidden = embed(ids)
        for layer in layers:
            hidden = layer(hidden, lengths)
        loss = cross_entropy(head(hidden).float(), ids)
    loss.backward()
    update(model, optimizer, clip=True)
