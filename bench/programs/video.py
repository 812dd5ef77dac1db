"""A video transformer, space and time attended in turn: drawn frames, resolutions and clips a batch."""

import random

import torch
from common import DEVICE, steps, update
from torch import nn

WIDTH, HEADS = 1024, 16


class Mix(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.qkv, self.out = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        qkv = self.qkv(self.norm(x.flatten(0, 1))).unflatten(-1, (3, HEADS, -1)).transpose(1, 3)
        q, k, v = qkv.unbind(2)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return x + self.out(mixed).view_as(x)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.space, self.time, self.norm = Mix(), Mix(), nn.LayerNorm(WIDTH)
        self.feed = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # clips, frames, places, width
        x = self.space(x)
        x = self.time(x.transpose(1, 2).contiguous()).transpose(1, 2)
        return x + self.feed(self.norm(x))


training = steps(20)
patch = nn.Conv3d(3, WIDTH, (2, 16, 16), (2, 16, 16))
blocks = nn.ModuleList(Block() for _ in range(12))
head = nn.Linear(WIDTH, 400)
model = nn.ModuleList([patch, blocks, head]).to(DEVICE)
optimizer = torch.optim.AdamW(model.parameters(), 1e-4)
for _ in training:
    frames, side = random.choice([8, 12, 16, 24, 32]), random.choice([112, 160, 192, 224, 288])
    clips = max(1, 12_000_000 // (3 * frames * side * side))
    films = torch.randint(0, 256, (clips, 3, frames, side, side), dtype=torch.uint8, device=DEVICE)
    with torch.autocast("cuda", torch.bfloat16):
        x = patch(films.float() / 255).flatten(3).permute(0, 2, 3, 1)
        for block in blocks:
            x = block(x)
        scores = head(x.mean((1, 2)))
    labels = torch.randint(0, 400, (clips,), device=DEVICE)
    nn.functional.cross_entropy(scores.float(), labels).backward()
    update(model, optimizer)
