"""Llama as torchtitan trains it, eager: FSDP2, checkpointing of chosen parts, foreach AdamW; prints one JSON object.

Float32 parameters, bfloat16 products, float32 sums of gradients; the loss in float32 over whole logits; rotary positions
as complex numbers; the norm spelt out or as one kernel (`--norm fused`). `--narrow`: gradients are summed, and the loss is taken, in
bfloat16, as fms-fsdp does; `--shards 8`: parameters are shared by 8 ranks, and their gradients summed among these groups (HSDP).

    ebbtide dryrun --device h100-80g --ranks 8 -- python bench/published_llama.py --model 8B --batch 2 --checkpointing op
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import functools
import json
import os
from typing import Any

import torch
import torch.distributed as dist
from published_gpt import seconds_of
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.nn import functional as F
from torch.utils.checkpoint import CheckpointPolicy, create_selective_checkpoint_contexts

_WARM, _STEPS = 2, 2
_KEPT = (
    torch.ops.aten.mm.default,
    torch.ops.aten._scaled_dot_product_efficient_attention.default,
    torch.ops.aten._scaled_dot_product_flash_attention.default,
    torch.ops._c10d_functional.reduce_scatter_tensor.default,
)


@dataclasses.dataclass(frozen=True)
class Shapes:
    layers: int
    width: int
    mlp: int
    heads: int
    kv_heads: int
    vocabulary: int


MODELS = {
    "7B": Shapes(32, 4096, 11008, 32, 32, 32000),  # Llama 2
    "34B": Shapes(48, 8192, 22016, 64, 8, 32000),  # Llama 2
    "8B": Shapes(32, 4096, 14336, 32, 8, 128256),
    "70B": Shapes(80, 8192, 28672, 64, 8, 128256),
    "13B": Shapes(40, 5120, 13824, 40, 40, 32000),  # Llama 2
    "70B-2": Shapes(80, 8192, 28672, 64, 8, 32000),
}


class SpeltOutNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        wide = x.float()
        return (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-5)).type_as(x) * self.weight


def turned(x: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    """Pairs of neighbours in (batch, tokens, heads, size) as complex numbers, times (tokens, size / 2) others."""
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * angles[None, :, None]).flatten(3).type_as(x)


class Block(nn.Module):
    def __init__(self, shapes: Shapes, norm: type[nn.Module]) -> None:
        super().__init__()
        self.size, self.copies = shapes.width // shapes.heads, shapes.heads // shapes.kv_heads
        linear = functools.partial(nn.Linear, bias=False)
        self.attention_norm, self.mlp_norm = norm(shapes.width), norm(shapes.width)
        self.q, self.out = linear(shapes.width, shapes.width), linear(shapes.width, shapes.width)
        self.k, self.v = (linear(shapes.width, shapes.kv_heads * self.size) for _ in "kv")
        self.gate, self.up = linear(shapes.width, shapes.mlp), linear(shapes.width, shapes.mlp)
        self.down = linear(shapes.mlp, shapes.width)

    def forward(self, x: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(self.attention_norm(x), angles)
        y = self.mlp_norm(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))

    def attention(self, x: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
        q, k, v = (part(x).unflatten(-1, (-1, self.size)) for part in (self.q, self.k, self.v))
        q, k = turned(q, angles), turned(k, angles)
        k, v = (self.for_all_heads(part) for part in (k, v))
        y = F.scaled_dot_product_attention(*(part.transpose(1, 2) for part in (q, k, v)), is_causal=True)
        return self.out(y.transpose(1, 2).contiguous().flatten(2))

    def for_all_heads(self, x: torch.Tensor) -> torch.Tensor:
        if self.copies == 1:
            return x
        return x.unsqueeze(3).expand(-1, -1, -1, self.copies, -1).reshape(*x.shape[:2], -1, self.size)


class Llama(nn.Module):
    def __init__(self, shapes: Shapes, tokens: int, norm: type[nn.Module]) -> None:
        super().__init__()
        self.words = nn.Embedding(shapes.vocabulary, shapes.width)
        self.blocks = nn.ModuleList(Block(shapes, norm) for _ in range(shapes.layers))
        self.norm, self.head = norm(shapes.width), nn.Linear(shapes.width, shapes.vocabulary, bias=False)
        self.register_buffer("angles", torch.ones(tokens, shapes.width // shapes.heads // 2, dtype=torch.complex64))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.words(ids)
        for block in self.blocks:
            x = block(x, self.angles)
        return self.head(self.norm(x))


def keep_chosen() -> Any:
    """Keeps attention's results and those of every other product, and computes the rest again."""
    products: dict[bool, int] = collections.Counter()

    def policy(context: Any, operator: Any, *_args: Any, **_named: Any) -> CheckpointPolicy:
        is_product = operator == torch.ops.aten.mm.default
        products[context.is_recompute] += is_product
        is_kept = operator in _KEPT and not (is_product and products[context.is_recompute] % 2 == 0)
        return CheckpointPolicy.MUST_SAVE if is_kept else CheckpointPolicy.PREFER_RECOMPUTE

    return create_selective_checkpoint_contexts(policy)


def make_model(options: argparse.Namespace) -> nn.Module:
    shapes = MODELS[options.model]
    with torch.device("meta"):
        norm = functools.partial(nn.RMSNorm, eps=1e-5) if options.norm == "fused" else SpeltOutNorm
        model = Llama(shapes, options.tokens, norm)
    summed = torch.bfloat16 if options.narrow else torch.float32
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=summed)
    shape = (dist.get_world_size() // options.shards, options.shards) if options.shards else None
    mesh = init_device_mesh("cuda", shape, mesh_dim_names=("replicate", "shard")) if shape else None
    for index, block in enumerate(model.blocks):
        if options.checkpointing == "op":
            block = checkpoint_wrapper(block, context_fn=keep_chosen, preserve_rng_state=False)
        elif options.checkpointing == "full" or (options.checkpointing == "layer" and index % 2 == 1):
            block = checkpoint_wrapper(block, preserve_rng_state=False)
        model.blocks[index] = fully_shard(block, mesh=mesh, mp_policy=policy, reshard_after_forward=index + 1 < shapes.layers)
    fully_shard(model, mesh=mesh, mp_policy=policy)
    return model.to_empty(device="cuda")


class Trainer:
    def __init__(self, options: argparse.Namespace) -> None:
        self.model = make_model(options)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), 3e-4, betas=(0.9, 0.95), weight_decay=0.1, foreach=True)
        self.batch, self.narrow = torch.zeros(options.batch, options.tokens, dtype=torch.long), options.narrow

    def step(self) -> None:
        ids, wanted = self.batch.cuda(), self.batch.cuda()
        self.optimizer.zero_grad()
        logits = self.model(ids)
        logits = logits.flatten(0, 1)
        loss = F.cross_entropy(logits if self.narrow else logits.float(), wanted.flatten())
        del logits
        loss.backward()
        gradients = [parameter.grad for parameter in self.model.parameters()]
        norm = nn.utils.get_total_norm(gradients, foreach=True).full_tensor()
        nn.utils.clip_grads_with_norm_(self.model.parameters(), 1.0, norm, foreach=True)
        self.optimizer.step()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=MODELS, required=True)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--checkpointing", choices=("none", "op", "layer", "full"), default="none")
    parser.add_argument("--norm", choices=("spelt-out", "fused"), default="spelt-out")
    parser.add_argument("--narrow", action="store_true")
    parser.add_argument("--shards", type=int, default=0)
    options = parser.parse_args()
    dist.init_process_group("nccl")
    torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    trainer = Trainer(options)
    for _ in range(_WARM):
        trainer.step()
    torch.cuda.reset_peak_memory_stats()
    seconds = seconds_of(trainer.step, _STEPS)
    held, live = torch.cuda.max_memory_reserved(), torch.cuda.max_memory_allocated()
    print(json.dumps({"seconds": seconds, "tokens": options.batch * options.tokens, "reserved": held, "live": live}))


if __name__ == "__main__":
    main()
