"""What the programs share: their options, and one optimizer step."""

from __future__ import annotations

import argparse
import random

import torch
from torch import nn

DEVICE = torch.device("cuda")


def steps(default: int) -> range:
    """Reads --steps and --seed, and seeds what draws the sizes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=default)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    random.seed(options.seed)
    torch.manual_seed(options.seed)
    return range(options.steps)


def update(model: nn.Module, optimizer: torch.optim.Optimizer, clip: bool = False) -> None:
    if clip:
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
