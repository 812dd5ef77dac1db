"""GPT-2 as nanoGPT writes it, eager, bfloat16 autocast, fused AdamW; trains a few steps in this process, or as one rank of
data-parallel ones, and prints one JSON object.

    ebbtide dryrun --device h100-80g -- python bench/published_nanogpt.py --size xl --batch 8
"""

from __future__ import annotations

import argparse
import json
import os

import torch
import torch.distributed as dist
from published_gpt import seconds_of
from torch import nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

_WARM, _STEPS = 2, 2
_VOCABULARY, _TOKENS = 50304, 1024
_SIZES = {"124M": (12, 12, 768), "xl": (48, 25, 1600)}  # layers, heads, width


class Norm(nn.Module):
    def __init__(self, width: int, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width)) if bias else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, 1e-5)


class Attention(nn.Module):
    def __init__(self, heads: int, width: int, bias: bool) -> None:
        super().__init__()
        self.heads, self.width = heads, width
        self.inputs, self.out = nn.Linear(width, 3 * width, bias=bias), nn.Linear(width, width, bias=bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.inputs(x).split(self.width, 2))
        y = F.scaled_dot_product_attention(q, k, v, dropout_p=0, is_causal=True)
        return self.out(y.transpose(1, 2).contiguous().flatten(2))


class Block(nn.Module):
    def __init__(self, heads: int, width: int, bias: bool) -> None:
        super().__init__()
        self.norms = nn.ModuleList(Norm(width, bias) for _ in range(2))
        self.attention = Attention(heads, width, bias)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width, bias=bias), nn.GELU(), nn.Linear(4 * width, width, bias=bias))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(self.norms[0](x))
        return x + self.mlp(self.norms[1](x))


class Gpt(nn.Module):
    def __init__(self, size: str, bias: bool) -> None:
        super().__init__()
        layers, heads, width = _SIZES[size]
        self.words, self.places = nn.Embedding(_VOCABULARY, width), nn.Embedding(_TOKENS, width)
        self.blocks = nn.Sequential(*(Block(heads, width, bias) for _ in range(layers)))
        self.norm, self.head = Norm(width, bias), nn.Linear(width, _VOCABULARY, bias=False)
        self.head.weight = self.words.weight

    def forward(self, ids: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        x = self.words(ids) + self.places(torch.arange(ids.shape[1], device=ids.device))
        logits = self.head(self.norm(self.blocks(x)))
        return F.cross_entropy(logits.view(-1, logits.size(-1)), wanted.view(-1), ignore_index=-1)


class Trainer:
    def __init__(self, options: argparse.Namespace) -> None:
        self.ranks, self.updates = int(os.environ.get("WORLD_SIZE", "1")), not options.no_update
        if self.ranks > 1:
            dist.init_process_group("nccl")
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        with torch.device("cuda"):
            self.model = Gpt(options.size, options.bias)
        self.trained = DistributedDataParallel(self.model, broadcast_buffers=False) if self.ranks > 1 else self.model
        parameters = list(self.model.parameters())
        groups = ([p for p in parameters if p.dim() >= 2], [p for p in parameters if p.dim() < 2])
        decays = ({"params": group, "weight_decay": decay} for group, decay in zip(groups, (0.1, 0.0), strict=True))
        self.optimizer = torch.optim.AdamW(decays, 6e-4, betas=(0.9, 0.95), fused=True)
        self.batch = torch.zeros(options.batch, _TOKENS, dtype=torch.long)

    def step(self) -> None:
        ids, wanted = self.batch.cuda(), self.batch.cuda()
        with torch.autocast("cuda", torch.bfloat16):
            loss = self.trained(ids, wanted)
        loss.backward()
        if self.updates:
            nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.ranks > 1:
            dist.all_reduce(loss.detach().float().clone(), op=dist.ReduceOp.AVG)
        torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=_SIZES, required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--bias", action="store_true")
    parser.add_argument("--no-update", action="store_true", help="forward and backward alone are timed")
    options = parser.parse_args()
    trainer = Trainer(options)
    trainer.updates = True  # its state takes memory
    for _ in range(_WARM):
        trainer.step()
    trainer.updates = not options.no_update
    seconds = seconds_of(trainer.step, _STEPS)
    held, live = torch.cuda.max_memory_reserved(), torch.cuda.max_memory_allocated()
    print(json.dumps({"seconds": seconds, "tokens": options.batch * _TOKENS, "reserved": held, "live": live}))


if __name__ == "__main__":
    main()
