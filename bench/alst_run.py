"""One step of Llama-8B with ALST's ways of saving memory, at one length, in this process: prints one JSON object.

ALST's recipes for one H200 keep parameters, gradients and optimizer states in host memory (ZeRO-3 with offload). Here
FSDP2 over as many ranks as `--ranks` says stands for that: what stays on the device of them is one layer at a time.

    ebbtide dryrun --ranks 512 -- python bench/alst_run.py --way tiled-loss --tokens 300000
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama import modeling_llama

# Each has what the ones before it have. ALST (arXiv 2506.13996), sections 3.1 to 3.3.
WAYS = ("baseline", "tiled-loss", "checkpoint-offload", "tiled-mlp", "ours")
_LOSS_TOKENS = 2048  # of a tile: a GiB of float32 logits
_TILE = 4096  # tokens


class _Swiglu(torch.autograd.Function):
    """silu(gate) * up that keeps its two arguments, and writes their gradients over them, as Liger's kernel does."""

    @staticmethod
    def forward(ctx: Any, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(gate, up)
        product = torch.empty_like(gate)
        for p, g, u in zip(*(part.split(_TILE, 1) for part in (product, gate, up)), strict=True):
            torch.mul(F.silu(g), u, out=p)
        return product

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        gate, up = ctx.saved_tensors
        for g, u, d in zip(*(part.split(_TILE, 1) for part in (gate, up, gradient)), strict=True):
            of_gate = torch.ops.aten.silu_backward(d * u, g)
            u.copy_(d * F.silu(g))
            g.copy_(of_gate)
        return gate, up


class _RmsNorm(torch.autograd.Function):
    """Keeps its input and a float32 number for each row; the gradient is written over the one that comes in."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
        y, scale = torch.empty_like(x), x.new_empty((*x.shape[:-1], 1), dtype=torch.float32)
        for part, out, s in zip(*(whole.split(_TILE, 1) for whole in (x, y, scale)), strict=True):
            row = part.float()
            torch.rsqrt(row.square().mean(-1, keepdim=True) + epsilon, out=s)
            out.copy_((row * s).to(x.dtype) * weight)
        ctx.save_for_backward(x, weight, scale)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, scale = ctx.saved_tensors
        of_weight = torch.zeros_like(weight, dtype=torch.float32)
        for part, g, s in zip(*(whole.split(_TILE, 1) for whole in (x, gradient, scale)), strict=True):
            normal, weighted = part.float() * s, g.float() * weight.float()
            of_weight += (g.float() * normal).sum((0, 1))
            g.copy_((weighted - normal * (weighted * normal).mean(-1, keepdim=True)) * s)
        return gradient, of_weight.to(weight.dtype), None


class _Rope(torch.autograd.Function):
    """Turns queries and keys where they lie, and their gradients, too: (batch, heads, tokens, head size).

    Both halves of a head have the same angles (of `cos` and `sin`: batch, tokens, head size), as in Llama.
    """

    @staticmethod
    def forward(
        ctx: Any, q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        ctx.save_for_backward(cos, sin)
        return _Rope.turned(q, cos, sin), _Rope.turned(k, cos, sin)

    @staticmethod
    def backward(ctx: Any, of_q: torch.Tensor, of_k: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        cos, sin = ctx.saved_tensors
        return _Rope.turned(of_q, cos, -sin), _Rope.turned(of_k, cos, -sin), None, None

    @staticmethod
    def turned(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        x = x.detach()
        half = x.shape[-1] // 2
        angles = (whole.unsqueeze(1).split(_TILE, 2) for whole in (cos, sin))
        for part, c, s in zip(x.split(_TILE, 2), *angles, strict=True):
            part.copy_(part * c + torch.cat((-part[..., half:], part[..., :half]), -1) * s)
        return x


def fuse(layer: torch.nn.Module) -> None:
    """Norms and activation in one kernel each: with the fused loss come Liger's others."""
    mlp = layer.mlp
    mlp.forward = lambda x: mlp.down_proj(_Swiglu.apply(mlp.gate_proj(x), mlp.up_proj(x)))
    for norm in (layer.input_layernorm, layer.post_attention_layernorm):
        norm.forward = lambda x, norm=norm: _RmsNorm.apply(x, norm.weight, norm.variance_epsilon)
    modeling_llama.apply_rotary_pos_emb = _Rope.apply  # for all layers, as Liger sets its own


def tile_mlp(layer: torch.nn.Module, hidden: int) -> None:
    """The MLP over tiles of `hidden` tokens, each computed again in backward."""
    mlp = layer.mlp.forward

    def forward(x: torch.Tensor) -> torch.Tensor:
        return torch.cat([checkpoint(mlp, part, use_reentrant=False) for part in x.split(hidden, 1)], 1)

    layer.mlp.forward = forward


def checkpoint_layer(layer: torch.nn.Module, on_host: bool) -> None:
    """Keeps the layer's input alone, on the device or in host memory."""
    whole = layer.forward

    def forward(hidden: torch.Tensor, **named: Any) -> torch.Tensor:
        def run(hidden: torch.Tensor) -> torch.Tensor:
            return whole(hidden, **named)

        return _OnHost.apply(hidden, run, on_host, torch.is_grad_enabled())

    layer.forward = forward


class _OnHost(torch.autograd.Function):
    """A reentrant checkpoint whose input waits where it is told to (ALST patches torch's so, section 3.3)."""

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, run: Any, on_host: bool, _is_training: bool) -> torch.Tensor:
        ctx.run, ctx.device = run, hidden.device
        ctx.kept = hidden.detach().to("cpu") if on_host else hidden.detach()
        return run(hidden)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        hidden = ctx.kept.to(ctx.device).requires_grad_()
        ctx.kept = None
        with torch.enable_grad():
            output = ctx.run(hidden)
        torch.autograd.backward(output, gradient)
        return hidden.grad, None, None, None


def tiled_loss(model: torch.nn.Module, hidden: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    def of_tile(part: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model.lm_head(part).float().flatten(0, 1), wanted.flatten(), reduction="sum")

    parts = zip(hidden.split(_LOSS_TOKENS, 1), labels.split(_LOSS_TOKENS, 1), strict=True)
    return torch.stack([checkpoint(of_tile, *part, use_reentrant=False) for part in parts]).sum() / labels.numel()


def make_model(way: str) -> torch.nn.Module:
    config = LlamaConfig(
        hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32,
        num_key_value_heads=8, vocab_size=128256, max_position_embeddings=1 << 24, attn_implementation="sdpa",
    )  # fmt: skip
    with torch.device("meta"):
        model = LlamaForCausalLM(config).to(torch.bfloat16)
    level = WAYS.index(way)
    for layer in model.model.layers:
        if way != "ours":
            if level >= WAYS.index("tiled-loss"):
                fuse(layer)
            if level >= WAYS.index("tiled-mlp"):
                tile_mlp(layer, config.hidden_size)
            checkpoint_layer(layer, on_host=level >= WAYS.index("checkpoint-offload"))
        fully_shard(layer)
    fully_shard(model)
    model.to_empty(device="cuda")
    for module in model.modules():  # a buffer, which every rank has whole
        if hasattr(module, "inv_freq"):
            module.inv_freq = torch.ones(config.hidden_size // config.num_attention_heads // 2, device="cuda")
    return model


def step(model: torch.nn.Module, way: str, tokens: int) -> None:
    ids = torch.zeros(1, tokens, dtype=torch.long, device="cuda")
    if way in ("baseline", "ours"):
        model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        return
    # The class's forward without its head: FSDP2 gathers what belongs to the root.
    model.forward = lambda ids: tiled_loss(model, model.model(input_ids=ids, use_cache=False)[0], ids)
    model(ids).backward()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--way", choices=WAYS, required=True)
    parser.add_argument("--tokens", type=int, required=True)
    parser.add_argument("--host", default="1TiB", help="host memory for ours")
    options = parser.parse_args()
    dist.init_process_group("nccl")
    torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    model = make_model(options.way)
    if options.way == "ours":
        import ebbtide

        ebbtide.offload(model, alpha=0, host=options.host, strict=True)
    fits = False
    with contextlib.suppress(torch.OutOfMemoryError):
        step(model, options.way, options.tokens)
        fits = True
    print(json.dumps({"fits": fits, "live_bytes": torch.cuda.max_memory_allocated()}))


if __name__ == "__main__":
    main()
