"""Diffusion: a U-Net on images of six shapes, an average of its weights beside it, samples now and then."""

import random

import torch
from common import DEVICE, steps, update
from torch import nn

CHANNELS = [64, 128, 256, 512]
SHAPES = [(64, 64), (96, 128), (128, 96), (160, 128), (128, 128), (256, 192)]


def half(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.GroupNorm(8, inputs), nn.SiLU(), nn.Conv2d(inputs, outputs, 3, padding=1)
    )


class Residual(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.body = nn.Sequential(half(inputs, outputs), half(outputs, outputs))
        self.skip = nn.Conv2d(inputs, outputs, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.body(image) + self.skip(image)


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        pairs = list(zip([CHANNELS[0], *CHANNELS], CHANNELS, strict=False))
        self.first = nn.Conv2d(4, CHANNELS[0], 3, padding=1)
        self.down = nn.ModuleList([Residual(before, after) for before, after in pairs])
        self.middle = Residual(CHANNELS[-1], CHANNELS[-1])
        above = [*CHANNELS[1:], CHANNELS[-1]]
        wide = list(zip(CHANNELS, above, strict=True))
        self.up = nn.ModuleList([Residual(own + deeper, own) for own, deeper in reversed(wide)])
        self.last = nn.Conv2d(CHANNELS[0], 4, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        hidden, skipped = self.first(image), []
        for stage in self.down:
            hidden = stage(hidden)
            skipped.append(hidden)
            hidden = nn.functional.avg_pool2d(hidden, 2)
        hidden = self.middle(hidden)
        for stage in self.up:
            hidden = nn.functional.interpolate(hidden, scale_factor=2.0)
            hidden = stage(torch.cat([hidden, skipped.pop()], 1))
        return self.last(hidden)


training = steps(24)
model, average = UNet().to(DEVICE), UNet().to(DEVICE)
optimizer = torch.optim.AdamW(model.parameters(), 1e-4)
for step in training:
    images = torch.randn(64, 4, *random.choice(SHAPES), device=DEVICE)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        loss = (model(images).float() - images).pow(2).mean()
    loss.backward()
    update(model, optimizer, clip=True)
    with torch.no_grad():
        for slow, fast in zip(average.parameters(), model.parameters(), strict=True):
            slow.lerp_(fast, 0.01)
        if step % 8 == 7:
            sample = torch.randn(8, 4, 64, 64, device=DEVICE)
            for _ in range(10):
                sample = average(sample)
