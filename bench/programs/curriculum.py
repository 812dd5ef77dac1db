"""A length curriculum: from 512 to 8192 tokens, longer every other step, checkpointed only when long."""

import random

import torch
from common import DEVICE, steps, update
from torch import nn
from torch.utils.checkpoint import checkpoint

WIDTH, HEADS, LAYERS, VOCABULARY = 2048, 16, 12, 50304


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.RMSNorm(WIDTH) for _ in range(2))
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH, False), nn.Linear(WIDTH, WIDTH, False)
        self.up, self.down = nn.Linear(WIDTH, 8 * WIDTH, False), nn.Linear(4 * WIDTH, WIDTH, False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        qkv = self.qkv(self.norms[0](x)).unflatten(-1, (3, HEADS, -1)).transpose(1, 3)
        q, k, v = qkv.unbind(2)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        gate, up = self.up(self.norms[1](x)).chunk(2, -1)
        return x + self.down(nn.functional.silu(gate) * up)


training = steps(30)
embed, head = nn.Embedding(VOCABULARY, WIDTH), nn.Linear(WIDTH, VOCABULARY, False)
blocks = nn.ModuleList(Block() for _ in range(LAYERS))
model = nn.ModuleList([embed, blocks, head]).to(DEVICE, torch.bfloat16)
optimizer = torch.optim.AdamW(model.parameters(), 1e-4)
length = 512.0
for step in training:
    ids = torch.randint(0, VOCABULARY, (2, int(length)), device=DEVICE)
    x = embed(ids)
    for block in blocks:
        x = checkpoint(block, x, use_reentrant=False) if length > 4096 else block(x)
    nn.functional.cross_entropy(head(x).flatten(0, 1).float(), ids.flatten()).backward()
    update(model, optimizer, clip=True)
    if step % 2:
        length = min(8192.0, length * random.uniform(1.1, 1.4))
