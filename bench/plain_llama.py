"""Llama in plain torch, for machines that have torch but not transformers.

The same shapes and the same kinds of tensors as transformers' class (rotary positions in float32,
grouped heads repeated, logits raised to float32 for the loss); not the same program.
"""

from __future__ import annotations

import torch
from scenarios import Scenario
from torch.nn import functional as F


class Attention(torch.nn.Module):
    def __init__(self, row: Scenario) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.width = row.heads, row.kv_heads, row.hidden // row.heads
        self.q = torch.nn.Linear(row.hidden, row.heads * self.width, bias=False)
        self.k = torch.nn.Linear(row.hidden, row.kv_heads * self.width, bias=False)
        self.v = torch.nn.Linear(row.hidden, row.kv_heads * self.width, bias=False)
        self.out = torch.nn.Linear(row.heads * self.width, row.hidden, bias=False)

    def forward(self, x, cos, sin, mask):
        shape = (*x.shape[:2], -1, self.width)
        q, k, v = (part(x).view(shape).transpose(1, 2) for part in (self.q, self.k, self.v))
        q, k = (t * cos + _rotate_half(t) * sin for t in (q, k))
        y = F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=mask is None, enable_gqa=self.heads != self.kv_heads
        )
        return self.out(y.transpose(1, 2).reshape(*x.shape[:2], -1))


def _rotate_half(x: torch.Tensor) -> torch.Tensor:
    first, second = x.chunk(2, dim=-1)
    return torch.cat((-second, first), dim=-1)


class Block(torch.nn.Module):
    def __init__(self, row: Scenario) -> None:
        super().__init__()
        self.attention_norm = torch.nn.RMSNorm(row.hidden)
        self.attention = Attention(row)
        self.mlp_norm = torch.nn.RMSNorm(row.hidden)
        self.gate = torch.nn.Linear(row.hidden, row.mlp, bias=False)
        self.up = torch.nn.Linear(row.hidden, row.mlp, bias=False)
        self.down = torch.nn.Linear(row.mlp, row.hidden, bias=False)

    def forward(self, x, cos, sin, mask):
        x = x + self.attention(self.attention_norm(x), cos, sin, mask)
        y = self.mlp_norm(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


class PlainLlama(torch.nn.Module):
    def __init__(self, row: Scenario) -> None:
        super().__init__()
        self.width = row.hidden // row.heads
        self.checkpointing = row.checkpointing
        self.embed = torch.nn.Embedding(row.vocabulary, row.hidden)
        self.blocks = torch.nn.ModuleList(Block(row) for _ in range(row.layers))
        self.norm = torch.nn.RMSNorm(row.hidden)
        self.head = torch.nn.Linear(row.hidden, row.vocabulary, bias=False)

    def _rotary(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        steps = torch.arange(0, self.width, 2, device=x.device, dtype=torch.float32)
        positions = torch.arange(x.shape[1], device=x.device, dtype=torch.float32)
        angles = torch.outer(positions, 10000.0 ** (-steps / self.width))
        angles = torch.cat((angles, angles), dim=-1)
        return angles.cos().to(x.dtype), angles.sin().to(x.dtype)

    def forward(self, input_ids, labels, attention_mask=None):
        x = self.embed(input_ids)
        cos, sin = self._rotary(x)
        mask = None
        if attention_mask is not None:
            length = input_ids.shape[1]
            causal = torch.ones(length, length, dtype=torch.bool, device=x.device).tril()
            mask = causal & (attention_mask != 0)[:, None, None, :]
        for block in self.blocks:
            if self.checkpointing and self.training:
                x = torch.utils.checkpoint.checkpoint(block, x, cos, sin, mask, use_reentrant=False)
            else:
                x = block(x, cos, sin, mask)
        logits = self.head(self.norm(x)).float()
        targets = F.pad(labels, (0, 1), value=-100)[:, 1:]
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-100)
