"""Masked autoencoder: a share of the patches is kept that is never the same, and images of two resolutions."""

import random

import torch
from common import DEVICE, steps, update
from torch import nn


def layers(width: int, count: int) -> nn.Module:
    layer = nn.TransformerEncoderLayer(width, 16, 4 * width, batch_first=True, norm_first=True)
    return nn.TransformerEncoder(layer, count, enable_nested_tensor=False)


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 1024, 16, 16)
        self.encoder, self.decoder = layers(1024, 8), layers(512, 4)
        self.narrow, self.pixels = nn.Linear(1024, 512), nn.Linear(512, 768)
        self.mask = nn.Parameter(torch.zeros(1, 1, 512))

    def forward(self, images: torch.Tensor, share: float) -> torch.Tensor:
        patches = self.patches(images).flatten(2).transpose(1, 2)
        count = patches.shape[1]
        order = torch.randperm(count, device=DEVICE)
        kept = order[: int(count * share)]
        hidden = self.narrow(self.encoder(patches[:, kept]))
        masked = self.mask.to(hidden.dtype).expand(len(images), count - len(kept), -1)
        whole = torch.cat([hidden, masked], 1)[:, order.argsort()]
        goal = nn.functional.unfold(images, 16, stride=16).transpose(1, 2)
        return (self.pixels(self.decoder(whole)) - goal).square().mean()


training = steps(24)
model = Model().to(DEVICE)
optimizer = torch.optim.AdamW(model.parameters(), 1e-4)
for _ in training:
    size = random.choice([224, 224, 288])
    images = torch.randn(96, 3, size, size, device=DEVICE)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        loss = model(images, random.uniform(0.15, 0.75))
    loss.backward()
    update(model, optimizer)
