"""What others measured of single operators of torch on real GPUs, and how to run the same: rows of published_kernels.py.

Sources: *liger*: linkedin/Liger-Kernel, benchmark/data/all_benchmark_data.csv as of commit ead96b61, rows of torch and
Hugging Face, medians. *traces*: AMD-AGI/TraceLens, tests/traces/h100 (Qwen1.5-0.5B, inference) and, as of commit 4dc822d,
evals/e2e_tests_comparative/llama3_2 (Llama 3.2 Vision, trained with FSDP over 8), kernels' mean times, those beside
collectives left out. *flash*: FlashAttention-3 (arXiv 2407.08608), figures 5 and 6, FlashAttention-2's bars.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

_ATEN, _FLASH = torch.ops.aten, SDPBackend.FLASH_ATTENTION


@dataclasses.dataclass(frozen=True)
class Kernel:
    source: str
    name: str
    microseconds: float  # measured
    run: Callable[[], object]


def new(*shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device="cuda")


def _wide(*shape: int) -> torch.Tensor:
    return new(*shape, dtype=torch.float32)


def _half_turned(x: torch.Tensor) -> torch.Tensor:
    half = x.shape[-1] // 2
    return torch.cat((-x[..., half:], x[..., :half]), -1)


def _norm(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Hugging Face's."""
    wide = x.float()
    wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-6)
    return weight * wide.to(x.dtype)


def gradient(y: torch.Tensor, *of: torch.Tensor) -> Callable[[], object]:
    grad = torch.empty_like(y)
    return lambda: torch.autograd.grad(y, of, grad, retain_graph=True)


def attend(backend: SDPBackend, *of: torch.Tensor, **options: bool) -> torch.Tensor:
    with sdpa_kernel(backend):
        return F.scaled_dot_product_attention(*of, **options)


def a100() -> Iterator[Kernel]:
    q, k, angles = new(1, 16384, 32, 256).transpose(1, 2), new(1, 16384, 8, 256).transpose(1, 2), new(1, 1, 16384, 256)
    turned = lambda x: x * angles + _half_turned(x) * angles  # noqa: E731
    yield Kernel("liger", "rotary embedding, 16384 x (32 + 8) x 256", 3817, lambda: (turned(q), turned(k)))
    x, weight = new(2048, 32768).requires_grad_(), new(32768).requires_grad_()
    yield Kernel("liger", "RMSNorm spelt out, 2048 x 32768", 1919, lambda: _norm(x.detach(), weight.detach()))
    yield Kernel("liger", "its backward", 5015, gradient(_norm(x, weight), x, weight))
    y, scale = _wide(4096, 16384), _wide(16384)
    yield Kernel("liger", "layer_norm, float32, 4096 x 16384", 506.7, lambda: F.layer_norm(y, (16384,), scale, scale))
    labels = torch.zeros(16384, dtype=torch.long, device="cuda")
    for columns, forward, both in ((32768, 5317, 15486), (131072, 20726, 60438)):
        z = _wide(16384, columns).requires_grad_()
        z.grad = torch.empty_like(z)
        yield Kernel("liger", f"cross_entropy, float32, 16384 x {columns}", forward, lambda z=z: F.cross_entropy(z.detach(), labels))
        yield Kernel("liger", "with its backward, which adds", both, lambda z=z: F.cross_entropy(z, labels).backward())
    gate, down, tokens = new(11008, 4096), new(4096, 11008), new(4, 8192, 4096)
    yield Kernel("liger", "SwiGLU MLP, 32768 x 4096 x 11008", 36291, lambda: F.linear(F.silu(F.linear(tokens, gate)) * F.linear(tokens, gate), down))
    head, ids = new(128256, 4096), torch.zeros(32768, dtype=torch.long, device="cuda")
    yield Kernel("liger", "head and cross_entropy, 32768 x 4096 x 128256", 151914, lambda: F.cross_entropy(F.linear(tokens.view(-1, 4096), head), ids))


def h100() -> Iterator[Kernel]:
    yield from _copies_and_elements()
    yield from _optimizer()
    yield from _rows()
    yield from _attention()
    yield from _products()


def _copies_and_elements() -> Iterator[Kernel]:
    wide = _wide(2, 32, 6404, 128)
    x, per_row, weight = wide.bfloat16(), _wide(2, 32, 6404, 1), new(128)
    y, another = x.clone(), wide.clone()
    heads = new(2, 6404, 8, 128).transpose(1, 2).unsqueeze(2).expand(2, 8, 4, 6404, 128)
    yield Kernel("traces", "heads repeated, bfloat16, 52 M elements", 177, lambda: heads.reshape(2, 32, 6404, 128))
    yield Kernel("traces", "bfloat16 to float32", 172.8, lambda: x.float())
    yield Kernel("traces", "float32 to bfloat16", 107.2, lambda: wide.bfloat16())
    yield Kernel("traces", "times a number for each row, float32", 192.2, lambda: wide * per_row)
    yield Kernel("traces", "times a row, bfloat16", 168, lambda: weight * x)
    yield Kernel("traces", "product of elements, bfloat16", 102.5, lambda: x * y)
    yield Kernel("traces", "product of elements, float32", 206.2, lambda: wide * another)
    yield Kernel("traces", "mean of rows of 128, float32", 127, lambda: wide.mean(-1))
    columns = new(12864, 5120)
    yield Kernel("traces", "sum of columns, bfloat16, 12864 x 5120", 60.6, lambda: columns.sum(0))
    yield Kernel("traces", "gelu, bfloat16, 12864 x 5120", 112, lambda: F.gelu(columns))
    q, angles = new(16, 559, 16, 64).transpose(1, 2), new(1, 1, 559, 64)
    yield Kernel("traces", "heads times angles, strided, 9 M elements", 32.0, lambda: q * angles)
    negated = -q[..., 32:]
    yield Kernel("traces", "two halves joined", 42.0, lambda: torch.cat((negated, q[..., :32]), -1))
    pair = new(8192, 2 * 16384)
    yield Kernel("liger", "silu and product of two halves, 8192 x 16384", 750.3, lambda: F.silu(pair[:, :16384]) * pair[:, 16384:])


def _optimizer() -> Iterator[Kernel]:
    """The parts of AdamW on a rank's 1.33 G parameters."""
    a, b, c = ([new(23 * 1000 * 1000) for _ in range(58)] for _ in range(3))
    yield Kernel("traces", "_foreach_mul_, bfloat16, 1.33 G elements", 2738, lambda: torch._foreach_mul_(a, 0.9))
    yield Kernel("traces", "_foreach_lerp_", 3616, lambda: torch._foreach_lerp_(a, b, 0.1))
    yield Kernel("traces", "_foreach_sqrt", 2532, lambda: torch._foreach_sqrt(a))
    yield Kernel("traces", "_foreach_addcdiv_", 4702, lambda: torch._foreach_addcdiv_(a, b, c))


def _rows() -> Iterator[Kernel]:
    x, weight = _wide(4096, 16384), _wide(16384)
    _, mean, scale = _ATEN.native_layer_norm(x, [16384], weight, weight, 1e-5)
    yield Kernel("liger", "layer_norm, float32, 4096 x 16384", 306.8, lambda: F.layer_norm(x, (16384,), weight, weight))
    yield Kernel("liger", "its backward", 642.4, lambda: _ATEN.native_layer_norm_backward(x, x, [16384], mean, scale, weight, weight, [True] * 3))
    y, narrow = new(4096, 16384), new(16384)
    y.requires_grad_(), narrow.requires_grad_()
    yield Kernel("liger", "rms_norm, bfloat16, 4096 x 16384", 149.2, lambda: F.rms_norm(y, (16384,), narrow))
    yield Kernel("liger", "with a sum, and their backward", 643.5, lambda: torch.autograd.grad(F.rms_norm(y, (16384,), narrow).sum(), (y, narrow)))
    z, short = new(12864, 1280), new(1280)
    _, mean_z, scale_z = _ATEN.native_layer_norm(z, [1280], short, short, 1e-5)
    yield Kernel("traces", "layer_norm, bfloat16, 12864 x 1280", 43.6, lambda: F.layer_norm(z, (1280,), short, short))
    yield Kernel("traces", "its backward", 109.6, lambda: _ATEN.native_layer_norm_backward(z, z, [1280], mean_z, scale_z, short, short, [True] * 3))
    logits = _wide(300, 128256)
    yield Kernel("traces", "log_softmax, float32, 300 x 128256", 231.4, lambda: logits.log_softmax(-1))
    yield Kernel("traces", "its backward", 255.6, lambda: _ATEN._log_softmax_backward_data(logits, logits, -1, torch.float32))


def _attention() -> Iterator[Kernel]:
    """16384 tokens in sequences of some length, 2048 wide."""
    for size, length, is_causal, forward in ((128, 1024, True, 260), (128, 8192, True, 333), (128, 8192, False, 370), (64, 1024, True, 229)):
        q = new(16384 // length, length, 2048 // size, size).transpose(1, 2)
        flops = 4 * 16384 * length * 2048 / (2 if is_causal else 1)
        name = f"attention, {16384 // length} x {length}, size {size}{', causal' if is_causal else ''}"
        yield Kernel("flash", name, flops / forward / 1e6, lambda q=q, c=is_causal: attend(_FLASH, q, q, q, is_causal=c))
    for length, backward in ((1024, 260), (8192, 318)):
        q = new(16384 // length, length, 16, 128).transpose(1, 2).requires_grad_()
        out = attend(_FLASH, q, q.detach(), q.detach())
        yield Kernel("flash", f"its backward, {16384 // length} x {length}, size 128", 10 * 16384 * length * 2048 / backward / 1e6, gradient(out, q))


def _products() -> Iterator[Kernel]:
    for m, n, k, microseconds in ((8944, 2816, 1024, 83.7), (12864, 5120, 1280, 233), (12864, 1280, 5120, 211)):
        a, b = new(m, k), new(n, k)
        yield Kernel("traces", f"product with a weight, {m} x {n} x {k}", microseconds, lambda a=a, b=b: a @ b.t())
    for m, n, k, microseconds in ((5120, 1280, 12864, 251.6), (1024, 4096, 12808, 134.3), (4096, 7680, 12808, 1027.7)):
        a, b = new(k, m), new(k, n)
        yield Kernel("traces", f"gradient of a weight, {m} x {n} x {k}", microseconds, lambda a=a, b=b: a.t() @ b)
