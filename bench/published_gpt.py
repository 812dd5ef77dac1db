"""GPT-2 (124M) as teaching programs write it: trains a few steps in this process and prints one JSON object.

What differs from program to program, and what their authors measured one by one, is an option: attention, norm and
activation spelt out or torch's own, the kinds of numbers, the optimizer.

    ebbtide dryrun --device a100-80g -- python bench/published_gpt.py --attention joint --tied --batch 16
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math

import torch
from torch import nn
from torch.nn import functional as F

_LAYERS, _WIDTH, _HEADS = 12, 768, 12
_WARM, _STEPS = 2, 2
_EVALUATED_EVERY = 15  # steps


class OwnNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        deviation = torch.sqrt(x.var(-1, keepdim=True, unbiased=False) + 1e-5)
        return self.scale * ((x - x.mean(-1, keepdim=True)) / deviation) + self.shift


class OwnGelu(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 0.5 * x * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * torch.pow(x, 3.0))))


class Attention(nn.Module):
    """`separate`: three products, scores masked in place; `joint`: one, masked into a copy; `sdpa`: one, torch's kernel."""

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__()
        self.way, self.dropout = options.attention, nn.Dropout(options.dropout)
        parts = (_WIDTH,) * 3 if self.way == "separate" else (3 * _WIDTH,)
        self.inputs = nn.ModuleList(nn.Linear(_WIDTH, part, bias=options.qkv_bias) for part in parts)
        self.out = nn.Linear(_WIDTH, _WIDTH)
        if self.way != "sdpa":
            self.register_buffer("later", torch.ones(options.tokens, options.tokens).triu(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = [part for inputs in self.inputs for part in inputs(x).split(_WIDTH, -1)]
        q, k, v = (part.unflatten(-1, (_HEADS, -1)).transpose(1, 2) for part in parts)
        if self.way == "sdpa":
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=self.dropout.p if self.training else 0)
        else:
            y = self.dropout(torch.softmax(self.scores(q, k), -1)) @ v
        return self.out(y.transpose(1, 2).reshape(x.shape))

    def scores(self, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        if self.way == "separate":
            return (q @ k.transpose(-2, -1)).masked_fill_(self.later.bool(), -torch.inf) / math.sqrt(q.shape[-1])
        return ((q @ k.transpose(-2, -1)) / math.sqrt(q.shape[-1])).masked_fill(self.later == 1, -torch.inf)


class Block(nn.Module):
    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__()
        norm = OwnNorm if options.norm == "own" else nn.LayerNorm
        activation = OwnGelu() if options.activation == "own" else nn.GELU(approximate="tanh")
        self.norms = nn.ModuleList((norm(_WIDTH), norm(_WIDTH)))
        self.attention, self.dropout = Attention(options), nn.Dropout(options.dropout)
        self.mlp = nn.Sequential(nn.Linear(_WIDTH, 4 * _WIDTH), activation, nn.Linear(4 * _WIDTH, _WIDTH))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.dropout(self.attention(self.norms[0](x)))
        return x + self.dropout(self.mlp(self.norms[1](x)))


class Gpt(nn.Module):
    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(options.vocabulary, _WIDTH), nn.Embedding(1024, _WIDTH)
        self.dropout = nn.Dropout(options.dropout)
        self.blocks = nn.Sequential(*(Block(options) for _ in range(_LAYERS)))
        self.norm = OwnNorm(_WIDTH) if options.norm == "own" else nn.LayerNorm(_WIDTH)
        self.head = nn.Linear(_WIDTH, options.vocabulary, bias=False)
        if options.tied:
            self.head.weight = self.words.weight

    def forward(self, ids: torch.Tensor, wanted: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.dropout(self.words(ids) + self.places(torch.arange(ids.shape[1], device=ids.device)))
        logits = self.head(self.norm(self.blocks(x)))
        return logits, F.cross_entropy(logits.flatten(0, 1), wanted.flatten())


class Trainer:
    def __init__(self, options: argparse.Namespace) -> None:
        if options.tf32:
            torch.set_float32_matmul_precision("high")
        torch.set_default_dtype(getattr(torch, options.dtype))
        with torch.device("cuda"):
            self.model = Gpt(options)
        kind = torch.optim.Adam if options.optimizer == "adam" else torch.optim.AdamW
        self.optimizer = kind(self.model.parameters(), 3e-4, fused=options.optimizer == "fused" or None)
        self.options = options
        self.batch = torch.zeros(options.batch, options.tokens, dtype=torch.long)

    def step(self) -> None:
        ids, wanted = self.batch.cuda(), self.batch.cuda()
        if not self.options.zeroes_late:
            self.optimizer.zero_grad()
        autocast = torch.autocast("cuda", torch.bfloat16) if self.options.autocast else contextlib.nullcontext()
        with autocast:
            logits, loss = self.model(ids, wanted)
        if self.options.frees_logits:
            del logits
        if self.options.zeroes_late:
            self.optimizer.zero_grad()
        if not self.options.forward_only:
            loss.backward()
            self.optimizer.step()
        if self.options.waits:
            loss.item()

    def evaluate(self) -> None:
        """A batch to train on and another, as such programs do between steps."""
        self.model.eval()
        with torch.no_grad():
            for _ in range(2):
                self.model(self.batch.cuda(), self.batch.cuda())[1].item()
        self.model.train()


def seconds_of(work: object, times: int) -> float:
    """Of one call, on the device's own clock, which is the predicted one in a dry run."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    for _ in range(times):
        work()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / 1000 / times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--attention", choices=("separate", "joint", "sdpa"), default="joint")
    parser.add_argument("--norm", choices=("own", "torch"), default="torch")
    parser.add_argument("--activation", choices=("own", "torch"), default="torch")
    parser.add_argument("--optimizer", choices=("adam", "adamw", "fused"), default="adamw")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of parameters")
    for name in ("tf32", "autocast", "tied", "qkv-bias", "frees-logits", "forward-only", "zeroes-late", "waits", "evaluates"):
        parser.add_argument(f"--{name}", action="store_true")
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--vocabulary", type=int, default=50257)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=1024)
    options = parser.parse_args()
    trainer = Trainer(options)
    for _ in range(_WARM):
        trainer.step()
        if options.evaluates:
            trainer.evaluate()
    seconds = seconds_of(trainer.step, _STEPS)
    if options.evaluates:
        seconds += seconds_of(trainer.evaluate, 1) / _EVALUATED_EVERY
    held, live = torch.cuda.max_memory_reserved(), torch.cuda.max_memory_allocated()
    print(json.dumps({"seconds": seconds, "tokens": options.batch * options.tokens, "reserved": held, "live": live}))


if __name__ == "__main__":
    main()
