"""Two networks in turns: two steps of the critic for one of the generator; batches of three sizes."""

import random

import torch
from common import DEVICE, steps
from torch import nn
from torch.nn.functional import softplus


def block(inputs: int, outputs: int, scale: nn.Module) -> nn.Sequential:
    return nn.Sequential(
        scale, nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.LeakyReLU(0.2)
    )


def noise(batch: int) -> torch.Tensor:
    return torch.randn(batch, 256, 1, 1, device=DEVICE)


training = steps(20)
growing = [block(512 >> k, 512 >> min(k + 1, 4), nn.Upsample(scale_factor=2)) for k in range(5)]
shrinking = [block(min(32 << k, 512), min(64 << k, 512), nn.AvgPool2d(2)) for k in range(5)]
generator = nn.Sequential(nn.ConvTranspose2d(256, 512, 4), *growing, nn.Conv2d(32, 3, 1)).to(DEVICE)
critic = nn.Sequential(nn.Conv2d(3, 32, 1), *shrinking, nn.Conv2d(512, 1, 4)).to(DEVICE)
of_generator = torch.optim.Adam(generator.parameters(), 1e-4)
of_critic = torch.optim.Adam(critic.parameters(), 1e-4)
for _ in training:
    batch = random.choice([128, 192, 256])
    real = torch.randn(batch, 3, 128, 128, device=DEVICE)
    for _ in range(2):
        with torch.no_grad():
            made = generator(noise(batch))
        loss = softplus(-critic(real)).mean() + softplus(critic(made)).mean()
        of_critic.zero_grad()
        loss.backward()
        of_critic.step()
    loss = softplus(-critic(generator(noise(batch)))).mean()
    of_generator.zero_grad()
    loss.backward()
    of_generator.step()
