"""Learning to learn (MAML): gradients of gradients, whose graphs stay alive over several inner steps."""

import random

import torch
from common import DEVICE, steps
from torch import nn
from torch.func import functional_call

training = steps(20)
body = [
    nn.Conv2d(3, 64, 3, padding=1),
    nn.ReLU(),
    nn.Conv2d(64, 64, 3, 2, 1),
    nn.ReLU(),
    nn.Conv2d(64, 64, 3, 2, 1),
    nn.ReLU(),
]
model = nn.Sequential(*body, nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(1024, 20)).to(DEVICE)
optimizer = torch.optim.Adam(model.parameters(), 1e-3)


def loss_of(weights: dict[str, torch.Tensor], images: int) -> torch.Tensor:
    scores = functional_call(model, weights, (torch.randn(images, 3, 84, 84, device=DEVICE),))
    return nn.functional.cross_entropy(scores, torch.randint(0, 20, (images,), device=DEVICE))


for _ in training:
    optimizer.zero_grad()
    for _ in range(4):
        images = random.choice([25, 50, 75])
        weights: dict[str, torch.Tensor] = dict(model.named_parameters())
        for _ in range(3):
            gradients = torch.autograd.grad(
                loss_of(weights, images), list(weights.values()), create_graph=True
            )
            weights = {
                name: w - 0.01 * g for (name, w), g in zip(weights.items(), gradients, strict=True)
            }
        (loss_of(weights, 100) / 4).backward()
    optimizer.step()
