"""Momentum contrast: a slow copy of the network, a queue of keys, float16 with scaled losses, two sizes of batch."""

import random

import torch
from common import DEVICE, steps
from torch import nn


def block(inputs: int, outputs: int, stride: int) -> nn.Module:
    layers: list[nn.Module] = []
    for width, step in ((inputs, stride), (outputs, 1)):
        layers += [
            nn.Conv2d(width, outputs, 3, step, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)


def network() -> nn.Module:
    body = [block(64, 64, 1), block(64, 128, 2), block(128, 256, 2), block(256, 512, 2)]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 128)]
    return nn.Sequential(nn.Conv2d(3, 64, 7, 2, 3), *body, *head).to(
        DEVICE, memory_format=torch.channels_last
    )


training = steps(20)
model, slow = network(), network()
queue = torch.randn(65536, 128, device=DEVICE)
optimizer = torch.optim.SGD(model.parameters(), 0.03, momentum=0.9)
scaler = torch.amp.GradScaler()
for _ in training:
    size = (random.choice([96, 128]), 3, 224, 224)
    images = torch.randn(size, device=DEVICE).to(memory_format=torch.channels_last)
    with torch.autocast("cuda", torch.float16):
        queries = model(images.flip(-1))
        with torch.no_grad():
            for parameter, fast in zip(slow.parameters(), model.parameters(), strict=True):
                parameter.lerp_(fast, 0.001)
            keys = slow(images)
        alike = (queries * keys).sum(1, keepdim=True)
        scores = torch.cat([alike, queries @ queue.T.to(queries.dtype)], 1) / 0.07
        loss = nn.functional.cross_entropy(
            scores, torch.zeros(len(images), dtype=torch.long, device=DEVICE)
        )
    optimizer.zero_grad()
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
    queue = torch.cat([keys.float(), queue])[:65536].clone()
