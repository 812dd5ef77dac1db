"""What others measured of operators that nothing of the model was taken from: rows of published_kernels.py.

Chosen before any was run. *liger*: of linkedin/Liger-Kernel's file (kernel_rows.py) the rows of torch and Hugging Face on an
A100, an H100 and an RTX 4090 that are not in kernel_rows.py, at the largest size. *apple*: apple/ml-cross-entropy, README.md,
baseline of gemma2 (Gemma 2 2B's head with its softcap, 8192 tokens), an A100, PyTorch 2.4.1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from kernel_rows import Kernel, new
from torch.nn import functional as F

_LABELS = 128256


def _wide(*shape: int) -> torch.Tensor:
    return new(*shape, dtype=torch.float32)


def _leaf(*shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    """With a gradient to which the next is added, as a weight's is where nobody clears it."""
    made = new(*shape, dtype=dtype).requires_grad_()
    made.grad = torch.empty_like(made)
    return made


def _backward(y: torch.Tensor, *cleared: torch.Tensor) -> Callable[[], None]:
    grad = torch.empty_like(y)

    def run() -> None:
        for leaf in cleared:
            leaf.grad = None
        y.backward(grad, retain_graph=True)

    return run


def a100() -> Iterator[Kernel]:
    for tokens, width, forward, both in ((16384, 768, 170.3, 1642.6), (16384, 4096, 863.4, 7489.4)):
        yield from _embedding(tokens, width, forward, both)
    yield from _mlp("GEGLU MLP", F.gelu, (65536, 4096, 11008), 72666, 144213)
    q, k, angles = _leaf(1, 16384, 32, 256), _leaf(1, 16384, 8, 256), new(1, 1, 16384, 256)
    turned = [_turned(x.transpose(1, 2), angles) for x in (q, k)]
    grads = [torch.empty_like(x) for x in turned]
    yield Kernel("liger", "rotary embedding's backward, 16384 x (32 + 8) x 256", 4557, lambda: torch.autograd.grad(turned, (q, k), grads, retain_graph=True))
    yield _normed()
    head, x = _leaf(_LABELS, 4096), _leaf(32768, 4096)
    labels = torch.zeros(32768, dtype=torch.long, device="cuda")
    yield Kernel("liger", "head and cross_entropy with their backward, 32768 x 4096", 452471, lambda: F.cross_entropy(F.linear(x, head), labels).backward())
    yield from _distilled_cosine()
    yield from _softcapped_head()


def _normed() -> Kernel:
    y, scale, shift = (_leaf(*shape, dtype=torch.float32) for shape in ((4096, 16384), (16384,), (16384,)))
    dy = torch.empty_like(y)

    def run() -> None:
        y.grad = None
        F.layer_norm(y, (16384,), scale, shift).backward(dy)

    return Kernel("liger", "layer_norm with its backward, float32, 4096 x 16384", 1621, run)


def _turned(x: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    half = x.shape[-1] // 2
    return x * angles + torch.cat((-x[..., half:], x[..., :half]), -1) * angles


def _embedding(tokens: int, width: int, forward: float, both: float) -> Iterator[Kernel]:
    table, ids = _leaf(131072, width, dtype=torch.float32), torch.zeros(tokens, dtype=torch.long, device="cuda")

    def full() -> None:
        found = F.embedding(ids, table)
        found.backward(torch.randn_like(found))

    yield Kernel("liger", f"embedding, float32, {tokens} of 131072 x {width}", forward, lambda: F.embedding(ids, table))
    yield Kernel("liger", "with random numbers and its backward, which adds", both, full)


def _mlp(
    name: str, activation: Callable[..., torch.Tensor], shape: tuple[int, int, int], forward: float, backward: float
) -> Iterator[Kernel]:
    tokens, width, inner = shape
    x, gate, up, down = _leaf(tokens, width), _leaf(inner, width), _leaf(inner, width), _leaf(width, inner)
    options = {"approximate": "tanh"} if activation is F.gelu else {}
    run = lambda: F.linear(activation(F.linear(x, gate), **options) * F.linear(x, up), down)  # noqa: E731
    yield Kernel("liger", f"{name}, {tokens} x {width} x {inner}", forward, run)
    yield Kernel("liger", "its backward", backward, _backward(run(), x))


def _distilled_cosine() -> Iterator[Kernel]:
    """A student of half the teacher's width; the loss of labels and the cosine of both's float32 logits."""
    student, taught, x, z = _leaf(_LABELS, 2048), _leaf(_LABELS, 4096), _leaf(8192, 2048), new(8192, 4096)
    labels = torch.zeros(8192, dtype=torch.long, device="cuda")

    def run() -> torch.Tensor:
        logits = (x @ student.t()).float()
        with torch.no_grad():
            wanted = (z @ taught.t()).float()
        hard = F.cross_entropy(logits, labels)
        logits /= 1.0
        wanted /= 1.0
        soft = 1 - F.cosine_similarity(F.normalize(logits, dim=-1), F.normalize(wanted, dim=-1), dim=-1)
        return 0.5 * hard + 0.5 * soft.mean()

    yield Kernel("liger", "distillation by cosine, 8192 x 4096 x 128256", 118382, run)
    yield Kernel("liger", "with its backward", 291500, lambda: run().backward())


def _softcapped_head() -> Iterator[Kernel]:
    x, head = _leaf(8192, 2304), _leaf(256000, 2304)
    labels = torch.zeros(8192, dtype=torch.long, device="cuda")

    def run() -> torch.Tensor:
        logits = torch.tanh((x @ head.T) / 30.0) * 30.0
        return F.cross_entropy(logits.float(), labels)

    def both() -> None:
        x.grad = head.grad = None
        run().backward()

    yield Kernel("apple", "head, softcap and cross_entropy, 8192 x 2304 x 256000", 81900, run)
    loss = run()
    yield Kernel("apple", "their backward", 122400, _backward(loss, x, head))
    del loss
    yield Kernel("apple", "both", 208800, both)


def h100() -> Iterator[Kernel]:
    x, r, weight = (_leaf(*shape, dtype=torch.float32) for shape in ((2048, 32768), (2048, 32768), (32768,)))
    run = lambda: _added_norm(x, r, weight)  # noqa: E731
    both = run()
    grads = [torch.empty_like(part) for part in both]
    yield Kernel("liger", "sum and RMSNorm spelt out, float32, 2048 x 32768", 982.8, run)
    yield Kernel("liger", "its backward", 2654, lambda: torch.autograd.grad(both, (x, r, weight), grads, retain_graph=True))
    y = _leaf(4096, 16384)
    yield Kernel("liger", "relu and square, bfloat16, 4096 x 16384", 185.5, lambda: torch.square(F.relu(y)))
    yield Kernel("liger", "its backward", 452.7, _backward(torch.square(F.relu(y)), y))
    yield from _variation()
    z = _leaf(2048, 4, 65536)

    def gated() -> None:
        z.grad = None
        a, b = torch.chunk(z, 2, -1)
        (F.silu(a) * b).sum().backward()

    yield Kernel("liger", "silu and product of two halves, a sum, and their backward, 8192 x 32768", 4573, gated)
    yield from _complex_rotary()
    yield from _distilled()


def _added_norm(x: torch.Tensor, r: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    both = x.to(torch.float32) + r.to(torch.float32)
    scaled = both * torch.rsqrt(both.pow(2).mean(-1, keepdim=True) + 1e-6)
    return weight * scaled.to(x.dtype), both.to(x.dtype)


def _variation() -> Iterator[Kernel]:
    leaf = _leaf(16384, 131072, dtype=torch.float32)
    p, q = leaf.softmax(-1), _wide(16384, 131072)
    run = lambda: (torch.abs(p - q) / 2.0).sum() / p.size(0)  # noqa: E731
    yield Kernel("liger", "total variation, float32, 16384 x 131072", 22337, run)
    yield Kernel("liger", "its backward, and a softmax's, which adds", 46838, _backward(run()))


def _complex_rotary() -> Iterator[Kernel]:
    q, k = _leaf(1, 16384, 32, 256), _leaf(1, 16384, 8, 256)
    angles = torch.empty(1, 16384, 1, 128, dtype=torch.complex64, device="cuda")

    def turned(x: torch.Tensor) -> torch.Tensor:
        pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
        return torch.view_as_real(pairs * angles).flatten(3).type_as(x)

    yield Kernel("liger", "rotary embedding as complex numbers, 16384 x (32 + 8) x 256", 1455.4, lambda: (turned(q), turned(k)))


def _distilled() -> Iterator[Kernel]:
    """The Jensen-Shannon divergence of two heads' logits."""
    student, taught, x, z = _leaf(_LABELS, 4096), _leaf(_LABELS, 4096), _leaf(8192, 4096), new(8192, 4096)
    of = lambda a, b: F.kl_div(a, b, reduction="none", log_target=True).sum(-1)  # noqa: E731

    def run() -> torch.Tensor:
        logits, wanted = F.linear(x, student), F.linear(z, taught)
        log_q, log_p = (torch.log_softmax(part / 1.0, -1).float() for part in (logits, wanted))
        middle = torch.lerp(torch.exp(log_q), torch.exp(log_p), 0.5)
        loss = 0.5 * of(torch.log(middle), log_p) + 0.5 * of(torch.log(middle), log_q)
        return (loss / 8192).sum().bfloat16()

    yield Kernel("liger", "divergence of two heads, 8192 x 4096 x 128256", 75153, run)
    yield Kernel("liger", "with its backward", 195295, lambda: run().backward())


def rtx4090() -> Iterator[Kernel]:
    yield from _mlp("GEGLU MLP", F.gelu, (32768, 2048, 4096), 11276, 23840)
    yield from _mlp("SwiGLU MLP", F.silu, (32768, 2048, 4096), 11342, 23853)
