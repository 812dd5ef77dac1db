"""Speech recognition with CTC: convolutions over every second frame, then an encoder; batches of as many frames as fit."""

import random

import torch
from common import DEVICE, steps, update
from torch import nn


class Recogniser(nn.Module):
    def __init__(self, width: int = 512) -> None:
        super().__init__()
        self.halve = nn.Sequential(
            nn.Conv2d(1, 64, 3, 2, 1), nn.GELU(), nn.Conv2d(64, 64, 3, 2, 1), nn.GELU()
        )
        self.project = nn.Linear(64 * 20, width)
        layer = nn.TransformerEncoderLayer(width, 8, 4 * width, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 12, enable_nested_tensor=False)
        self.head = nn.Linear(width, 128)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        hidden = self.halve(frames[:, None]).transpose(1, 2).flatten(2)
        return self.head(self.encoder(self.project(hidden)))


training = steps(25)
model = Recogniser().to(DEVICE)
optimizer = torch.optim.AdamW(model.parameters(), 1e-4)
for _ in training:
    length = random.randint(300, 1800)
    batch = max(4, 24000 // length)
    scores = model(torch.randn(batch, length, 80, device=DEVICE)).log_softmax(-1).transpose(0, 1)
    words = torch.randint(1, 128, (batch, length // 20), device=DEVICE)
    lengths = [torch.full((batch,), count) for count in (scores.shape[0], length // 20)]
    nn.functional.ctc_loss(scores, words, *lengths).backward()
    update(model, optimizer, clip=True)
