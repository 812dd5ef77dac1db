"""A detector with a feature pyramid: images of several shapes, a number of regions that is never the same."""

import random

import torch
from common import DEVICE, steps
from torch import nn

SHAPES = [(640, 800), (800, 1216), (800, 1088), (1216, 800), (704, 960), (768, 1152)]
CHANNELS = [64, 128, 256, 512]


def convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            convolution(inputs, outputs, stride),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        same = inputs == outputs and stride == 1
        self.skip = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, stride)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.relu_(self.body(image) + self.skip(image))


class Detector(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(convolution(3, 64, 2), nn.MaxPool2d(2))
        self.stages = nn.ModuleList()
        inputs = CHANNELS[0]
        for number, outputs in enumerate(CHANNELS):
            first = Block(inputs, outputs, 2 if number else 1)
            rest = [Block(outputs, outputs, 1) for _ in range(2)]
            self.stages.append(nn.Sequential(first, *rest))
            inputs = outputs
        self.lateral = nn.ModuleList([nn.Conv2d(outputs, 256, 1) for outputs in CHANNELS])
        self.classes = nn.Sequential(
            convolution(256, 256), convolution(256, 256), nn.Conv2d(256, 80, 3, 1, 1)
        )
        self.regions = nn.Sequential(nn.Linear(256 * 49, 1024), nn.ReLU(), nn.Linear(1024, 84))

    def forward(self, images: torch.Tensor, regions: int) -> torch.Tensor:
        features = []
        image = self.stem(images)
        for stage in self.stages:
            image = stage(image)
            features.append(image)
        pyramid: list[torch.Tensor] = []
        for lateral, feature in zip(reversed(self.lateral), reversed(features), strict=True):
            level = lateral(feature)
            if pyramid:
                level = level + nn.functional.interpolate(pyramid[-1], size=level.shape[-2:])
            pyramid.append(level)
        loss = sum(self.classes(level).float().sigmoid().mean() for level in pyramid)
        pooled = nn.functional.adaptive_avg_pool2d(pyramid[-1], 7).flatten(1)
        chosen = pooled[torch.randint(0, len(pooled), (regions,), device=DEVICE)]
        return loss + self.regions(chosen).float().pow(2).mean()


training = steps(30)
model = Detector().to(DEVICE)
optimizer = torch.optim.SGD(model.parameters(), 0.02, momentum=0.9)
for _ in training:
    images = torch.randn(8, 3, *random.choice(SHAPES), device=DEVICE)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        loss = model(images, random.randint(200, 2000))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
