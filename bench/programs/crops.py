"""Self-distillation (DINO): a teacher that follows, two large crops and any number of small ones, two resolutions."""

import copy
import random

import torch
from common import DEVICE, steps, update
from torch import nn

ROWS = 48


class Encoder(nn.Module):
    def __init__(self, width: int = 768) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 16, 16)
        layer = nn.TransformerEncoderLayer(width, 12, 4 * width, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 8, enable_nested_tensor=False)
        self.head = nn.Sequential(nn.Linear(width, 2048), nn.GELU(), nn.Linear(2048, 32768))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.encoder(self.patches(images).flatten(2).transpose(1, 2)).mean(1))


def crops(count: int, size: int) -> torch.Tensor:
    return torch.randn(count * ROWS, 3, size, size, device=DEVICE)


training = steps(24)
model = Encoder().to(DEVICE)
teacher = copy.deepcopy(model).requires_grad_(False)
optimizer = torch.optim.AdamW(model.parameters(), 1e-4)
for _ in training:
    small = random.randint(4, 10)
    images, details = crops(2, random.choice([224, 256])), crops(small, 96)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        with torch.no_grad():
            goals = teacher(images).float().softmax(-1).view(2, ROWS, -1)
        scores = torch.cat([model(images), model(details)]).float()
        views = scores.log_softmax(-1).view(2 + small, ROWS, -1)
        pairs = [(i, j) for i in range(2) for j in range(2 + small) if i != j]
        loss = -torch.stack([(goals[i] * views[j]).sum(-1).mean() for i, j in pairs]).mean()
    loss.backward()
    update(model, optimizer, clip=True)
    with torch.no_grad():
        for slow, fast in zip(teacher.parameters(), model.parameters(), strict=True):
            slow.lerp_(fast, 0.01)
