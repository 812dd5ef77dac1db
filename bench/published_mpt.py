"""MPT as llm-foundry trains it, eager: sharded over ranks, blocks checkpointed, gradients summed over microbatches.

Biases, learned places, GELU, a head that shares the embedding; float32 parameters, bfloat16 products, AdamW parameter
by parameter. Prints one JSON object.

    ebbtide dryrun --device a100-80g --ranks 8 -- python bench/published_mpt.py --model 7b --batch 8 --checkpointing
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os

import torch
import torch.distributed as dist
from published_gpt import seconds_of
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.nn import functional as F

_VOCABULARY = 50368


@dataclasses.dataclass(frozen=True)
class Shapes:
    layers: int
    width: int
    heads: int


MODELS = {
    "1b": Shapes(24, 2048, 16),
    "3b": Shapes(32, 2560, 20),
    "7b": Shapes(32, 4096, 32),
    "13b": Shapes(40, 5120, 40),
    "30b": Shapes(48, 7168, 56),
    "70b": Shapes(80, 8192, 64),
}


def kept(x: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The tokens that a mask keeps, here all of them, and where they were; the host waits twice."""
    where = mask.flatten().nonzero().flatten()
    mask.sum(-1, dtype=torch.int32).max().item()
    return torch.gather(x.flatten(0, 1), 0, where[:, None].expand(-1, x.shape[-1])).view_as(x), where


class Block(nn.Module):
    def __init__(self, shapes: Shapes, packs: bool) -> None:
        super().__init__()
        width = shapes.width
        self.heads, self.packs = shapes.heads, packs
        self.norms = nn.ModuleList((nn.LayerNorm(width), nn.LayerNorm(width)))
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(self.norms[0](x))
        return x + self.mlp(self.norms[1](x))

    def attention(self, x: torch.Tensor) -> torch.Tensor:
        parts = self.qkv(x).chunk(3, -1)
        if self.packs:
            mask = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
            (parts, (where, *_)) = zip(*(kept(part, mask) for part in parts), strict=True)
        heads = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        y = F.scaled_dot_product_attention(*heads, is_causal=True).transpose(1, 2).reshape(x.shape)
        if self.packs:
            y = torch.zeros_like(x).flatten(0, 1).index_put((where,), y.flatten(0, 1)).view_as(x)
        return self.out(y)


class Mpt(nn.Module):
    def __init__(self, shapes: Shapes, tokens: int, packs: bool) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(_VOCABULARY, shapes.width), nn.Embedding(tokens, shapes.width)
        self.blocks = nn.ModuleList(Block(shapes, packs) for _ in range(shapes.layers))
        self.norm = nn.LayerNorm(shapes.width)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.words(ids) + self.places(torch.arange(ids.shape[1], device=ids.device))
        for block in self.blocks:
            x = block(x)
        return F.linear(self.norm(x), self.words.weight)


def make_model(options: argparse.Namespace) -> nn.Module:
    with torch.device("meta"):
        model = Mpt(MODELS[options.model], options.tokens, options.packs)
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    for index, block in enumerate(model.blocks):
        if options.checkpointing:
            block = checkpoint_wrapper(block)
        model.blocks[index] = fully_shard(block, mp_policy=policy, reshard_after_forward=not options.keeps_parameters)
    fully_shard(model, mp_policy=policy)
    return model.to_empty(device="cuda")


class Trainer:
    def __init__(self, options: argparse.Namespace) -> None:
        self.model, self.microbatches = make_model(options), options.microbatches
        self.optimizer = torch.optim.AdamW(self.model.parameters(), 1e-4, betas=(0.9, 0.95), foreach=False)
        self.batch = torch.zeros(options.batch, options.tokens, dtype=torch.long)

    def step(self) -> None:
        self.optimizer.zero_grad()
        for _ in range(self.microbatches):
            logits = self.model(self.batch.cuda())
            F.cross_entropy(logits.flatten(0, 1), self.batch.cuda().flatten()).backward()
            del logits
        gradients = [parameter.grad for parameter in self.model.parameters()]
        norm = nn.utils.get_total_norm(gradients).full_tensor()
        nn.utils.clip_grads_with_norm_(self.model.parameters(), 1.0, norm)
        self.optimizer.step()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=MODELS, required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--microbatches", type=int, default=1)
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--keeps-parameters", action="store_true", help="gathered from forward to backward")
    parser.add_argument("--packs", action="store_true", help="q, k and v without what a mask drops, before attention")
    options = parser.parse_args()
    dist.init_process_group("nccl")
    torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    trainer = Trainer(options)
    trainer.step()
    seconds = seconds_of(trainer.step, 1)
    held, live = torch.cuda.max_memory_reserved(), torch.cuda.max_memory_allocated()
    tokens = options.batch * options.tokens * options.microbatches
    print(json.dumps({"seconds": seconds, "tokens": tokens, "reserved": held, "live": live}))


if __name__ == "__main__":
    main()
