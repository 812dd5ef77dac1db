"""A GPT whose layers are split over ranks, tensor and sequence parallel as Megatron-LM does it (arXiv 2205.05198).

Each rank holds 1/n of every layer's weights and, between the products, 1/n of the tokens: they are gathered before
the first product of a pair, and the second one's results are summed and scattered. Layers offer their parts, so
that ebbtide.offload cuts them: a row of a piece is one token of each rank. Rank r of n holds the tokens r, r + n,
r + 2n, ..., so that these rows are in order as they are, and attention needs no copies.
Embedding, head and loss work on the rank's own tokens with whole weights; the loss is taken in pieces.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
import torch.distributed as dist
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

_HEAD_TOKENS = 4096  # of a piece of the loss


@dataclasses.dataclass(frozen=True)
class Shapes:
    layers: int
    hidden: int
    mlp: int
    heads: int
    vocabulary: int


def _gather(mine: torch.Tensor) -> torch.Tensor:
    """[1, tokens, width] of each rank -> [1, ranks, tokens, width]."""
    every = mine.new_empty((1, dist.get_world_size(), *mine.shape[1:]))
    dist.all_gather_into_tensor(every.flatten(0, 1), mine.contiguous())
    return every


def _scatter_sum(every: torch.Tensor) -> torch.Tensor:
    """[1, ranks, tokens, width], a part of a sum on each rank -> the sum for this rank's tokens."""
    mine = every.new_empty((1, *every.shape[2:]))
    dist.reduce_scatter_tensor(mine, every.contiguous().flatten(0, 1))
    return mine


class _GatherThenMultiply(torch.autograd.Function):
    """x of this rank's tokens @ weight for the tokens of all; keeps only the rank's own x."""

    @staticmethod
    def forward(ctx: Any, mine: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(mine, weight)
        return F.linear(_gather(mine), weight)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mine, weight = ctx.saved_tensors
        every = _gather(mine).flatten(0, 2)
        for_mine = _scatter_sum(gradient @ weight)
        return for_mine, gradient.flatten(0, 2).T @ every


class _MultiplyThenScatter(torch.autograd.Function):
    """[1, tokens, ranks, part of the width] @ weight, summed over ranks, for this rank's tokens."""

    @staticmethod
    def forward(ctx: Any, every: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(every, weight)
        return _scatter_sum(_by_rank(F.linear(every, weight)))

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        every, weight = ctx.saved_tensors
        whole = _gather(gradient)
        for_weight = whole.flatten(0, 2).T @ _by_rank(every).flatten(0, 2)
        return (whole @ weight).transpose(1, 2), for_weight


def _by_rank(every: torch.Tensor) -> torch.Tensor:
    """[1, tokens, ranks, width] -> [1, ranks, tokens, width], as collectives have it; or back."""
    return every.transpose(1, 2)


class Layer(torch.nn.Module):
    """One decoder layer's share of a rank."""

    def __init__(self, shapes: Shapes, ranks: int) -> None:
        super().__init__()
        hidden, width = shapes.hidden, shapes.hidden // ranks
        self.size = hidden // shapes.heads
        self.norm1 = torch.nn.LayerNorm(hidden)
        self.qkv = torch.nn.Parameter(torch.empty(3 * width, hidden))
        self.out = torch.nn.Parameter(torch.empty(hidden, width))
        self.up = torch.nn.Parameter(torch.empty(shapes.mlp // ranks, hidden))
        self.down = torch.nn.Parameter(torch.empty(hidden, shapes.mlp // ranks))
        self.norm2 = torch.nn.LayerNorm(hidden)

    def before_attention(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        every = _GatherThenMultiply.apply(self.norm1(x), self.qkv)
        return tuple(part.transpose(1, 2).contiguous() for part in every.chunk(3, -1))

    def attention(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        def heads(part: torch.Tensor) -> torch.Tensor:  # [1, heads, tokens of all ranks, size]
            return part.flatten(1, 2).unflatten(-1, (-1, self.size)).transpose(1, 2)

        out = F.scaled_dot_product_attention(heads(q), heads(k), heads(v), is_causal=True)
        return out.transpose(1, 2).reshape(q.shape)

    def after_attention(self, x: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        x = x + _MultiplyThenScatter.apply(out, self.out)
        up = F.gelu(_GatherThenMultiply.apply(self.norm2(x), self.up))
        return x + _MultiplyThenScatter.apply(up.transpose(1, 2), self.down)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.after_attention(x, self.attention(*self.before_attention(x)))


class Gpt(torch.nn.Module):
    """`checkpointing`: each layer's input is kept, and all else of it computed twice."""

    def __init__(self, shapes: Shapes, ranks: int, checkpointing: bool) -> None:
        super().__init__()
        self.checkpointing = checkpointing
        self.embedding = torch.nn.Embedding(shapes.vocabulary, shapes.hidden)
        self.layers = torch.nn.ModuleList(Layer(shapes, ranks) for _ in range(shapes.layers))
        self.norm = torch.nn.LayerNorm(shapes.hidden)
        self.head = torch.nn.Linear(shapes.hidden, shapes.vocabulary, bias=False)

    def _piece_loss(self, x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        logits = self.head(self.norm(x)).float().flatten(0, 1)
        return F.cross_entropy(logits, labels.flatten(), reduction="sum")

    def forward(self, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        x = self.embedding(ids)
        for layer in self.layers:
            x = checkpoint(layer, x, use_reentrant=False) if self.checkpointing else layer(x)
        losses = [
            checkpoint(self._piece_loss, part, wanted, use_reentrant=False)
            for part, wanted in zip(x.split(_HEAD_TOKENS, 1), labels.split(_HEAD_TOKENS, 1), strict=True)
        ]
        return torch.stack(losses).sum() / labels.numel()


class MixedAdamW:
    """AdamW on float32 copies of bfloat16 parameters; those that every rank holds whole are summed over ranks."""

    def __init__(self, model: Gpt) -> None:
        self._held = [p for layer in model.layers for p in (layer.qkv, layer.out, layer.up, layer.down)]
        split = {id(p) for p in self._held}
        self._whole = [p for p in model.parameters() if id(p) not in split]
        self._parameters = list(model.parameters())
        self._masters = [p.detach().float() for p in self._parameters]
        self._optimizer = torch.optim.AdamW(self._masters, fused=True)

    def step(self) -> None:
        for parameter in self._whole:
            dist.all_reduce(parameter.grad)
        for master, parameter in zip(self._masters, self._parameters, strict=True):
            master.grad = parameter.grad.float()
            parameter.grad = None
        self._optimizer.step()
        self._optimizer.zero_grad()
        with torch.no_grad():
            for master, parameter in zip(self._masters, self._parameters, strict=True):
                parameter.copy_(master)
