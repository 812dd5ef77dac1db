"""Trains small models for two steps on CPU tensors or on a simulated device: prints the peak of live bytes of each.

    python live_bytes.py cpu|cuda
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint


class Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(96, 96) for _ in range(4))
        self.recompute = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            if self.recompute:  # random states would be CPU tensors in either run
                x = checkpoint(
                    lambda y, layer=layer: F.gelu(layer(y)), x, use_reentrant=False, preserve_rng_state=False
                )
            else:
                x = F.gelu(layer(x))
        return x.square().mean()


class Attention(nn.Module):
    """Attention in elementary operators: softmax's backward has memory of its own on a device alone,
    and a number that is multiplied with is a tensor on the host."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(64)
        self.qkv = nn.Linear(64, 192, bias=False)
        self.out = nn.Linear(64, 64, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, tokens, width = x.shape
        split = self.qkv(self.norm(x)).view(batch, tokens, 3, 4, 16).permute(2, 0, 3, 1, 4)
        q, k, v = (part.reshape(batch * 4, tokens, 16) for part in split)
        scores = torch.bmm(q, k.transpose(1, 2))
        future = torch.ones(tokens, tokens, dtype=torch.bool, device=x.device).triu(1)
        weights = scores.masked_fill(future, float("-inf")).exp()
        weights = weights / weights.sum(-1, keepdim=True)
        mixed = torch.bmm(weights, v).view(batch, 4, tokens, 16)
        return self.out(mixed.transpose(1, 2).reshape(batch, tokens, width)).square().mean()


class LanguageModel(nn.Module):
    """Embedding, a layer, a head and the loss over a vocabulary."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(1000, 64)
        self.body = Attention()
        self.head = nn.Linear(64, 1000, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = torch.arange(2 * 48, device=x.device).view(2, 48)
        hidden = self.embed(tokens)
        logits = self.head(hidden + hidden * self.body(hidden))
        return F.cross_entropy(logits.flatten(0, 1).float(), tokens.flatten())


class Convolution(nn.Module):
    """A convolution over patches: unfolded, multiplied, pooled."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Linear(27, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        patches = x.unfold(2, 3, 1).unfold(3, 3, 1).permute(0, 2, 3, 1, 4, 5)
        y = F.relu(self.kernel(patches.reshape(*patches.shape[:3], 27)))
        return y.mean(dim=(1, 2)).square().sum()


def recomputing() -> Mlp:
    model = Mlp()
    model.recompute = True
    return model


CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], str]] = {
    "mlp": (Mlp, (333, 96), "adamw"),
    "mlp recomputed": (recomputing, (333, 96), "adamw"),
    "attention": (Attention, (2, 77, 64), "sgd"),
    "language model": (LanguageModel, (1,), "adamw"),
    "convolution": (Convolution, (2, 3, 21, 19), "sgd"),
}


def train(name: str, device: str) -> None:
    make, shape, optimizer_name = CASES[name]
    with torch.device(device):
        model = make()
    if optimizer_name == "adamw":
        optimizer: torch.optim.Optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    else:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, foreach=False)
    for _ in range(2):
        model(torch.ones(*shape, device=device)).backward()
        optimizer.step()
        optimizer.zero_grad()


def peak_on_cpu(name: str) -> int:
    """From what torch's CPU allocator reports to its profiler."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as run:
        train(name, "cpu")
    changes = []
    pending = list(run.profiler.kineto_results.experimental_event_tree())
    while pending:
        event = pending.pop()
        pending += event.children
        if event.name == "[memory]":
            changes.append((event.start_time_ns, event.extra_fields.alloc_size))
    live = peak = 0
    for _, size in sorted(changes, key=lambda change: change[0]):
        live += size
        peak = max(peak, live)
    return peak


def peak_on_device(name: str) -> int:
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_stats()["requested_bytes.all.current"]
    train(name, "cuda")
    return int(torch.cuda.memory_stats()["requested_bytes.all.peak"] - before)


def main() -> None:
    count = peak_on_cpu if sys.argv[1] == "cpu" else peak_on_device
    torch.zeros(8, 8, device=sys.argv[1]) @ torch.zeros(8, 8, device=sys.argv[1])
    print(json.dumps({name: count(name) for name in CASES}))


main()
