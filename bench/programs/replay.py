"""Q-learning from pixels: a replay buffer on the GPU that grows by episodes, halved when it is full."""

import copy
import random

import torch
from common import DEVICE, steps, update
from torch import nn

FRAMES, SIDE, ACTIONS = 4, 84, 18
training = steps(25)
body = [nn.Conv2d(FRAMES, 64, 8, 4), nn.ReLU(), nn.Conv2d(64, 128, 4, 2), nn.ReLU(), nn.Conv2d(128, 128, 3), nn.ReLU()]
model = nn.Sequential(*body, nn.Flatten(), nn.Linear(6272, 2048), nn.ReLU(), nn.Linear(2048, ACTIONS * 51)).to(DEVICE)
target = copy.deepcopy(model).requires_grad_(False)
optimizer = torch.optim.Adam(model.parameters(), 1e-4)
frames = torch.zeros(0, FRAMES, SIDE, SIDE, dtype=torch.uint8, device=DEVICE)
actions = torch.zeros(0, dtype=torch.long, device=DEVICE)
rewards = torch.zeros(0, device=DEVICE)


def values(net: nn.Module, seen: torch.Tensor) -> torch.Tensor:
    return net(seen.float() / 255).view(-1, ACTIONS, 51)


for step in training:
    episodes = []
    with torch.no_grad():
        for _ in range(8):  # eight environments, for a drawn number of frames
            steps_taken = random.randint(300, 2500)
            seen = torch.randint(0, 256, (steps_taken, FRAMES, SIDE, SIDE), dtype=torch.uint8, device=DEVICE)
            chosen = values(model, seen[:512]).softmax(-1).mean(-1).argmax(-1)
            episodes.append((seen, torch.randint(0, ACTIONS, (steps_taken,), device=DEVICE)))
    frames = torch.cat([frames, *(seen for seen, _ in episodes)])
    actions = torch.cat([actions, *(taken for _, taken in episodes)])
    rewards = torch.cat([rewards, torch.randn(len(actions) - len(rewards), device=DEVICE)])
    del episodes, seen
    if len(frames) > 150_000:
        frames, actions, rewards = frames[75_000:].clone(), actions[75_000:].clone(), rewards[75_000:].clone()
    for _ in range(10):
        rows = torch.randint(0, len(frames) - 1, (1024,), device=DEVICE)
        with torch.no_grad():
            later = values(target, frames[rows + 1])
            best = values(model, frames[rows + 1]).mean(-1).argmax(-1).clamp(0, ACTIONS - 1)
            aim = later[torch.arange(1024, device=DEVICE), best] * 0.99 + rewards[rows, None]
        told = values(model, frames[rows])[torch.arange(1024, device=DEVICE), actions[rows]]
        nn.functional.smooth_l1_loss(told, aim).backward()
        update(model, optimizer, clip=True)
    if step % 5 == 4:
        target.load_state_dict(model.state_dict())
