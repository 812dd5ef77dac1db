"""What NVIDIA measured of torch's norms and of cuDNN's attention on an H200: rows of published_kernels.py.

Source, *cudnn*: NVIDIA/cudnn-frontend as of February 2026, benchmark/norms/results/h200 (backend pytorch; from the bandwidths,
which have more digits than the times) and benchmark/sdpa_benchmark_training/results/h200_919_only_cudnn (cuDNN 9.19, Llama 3.1's
64 heads of 128, 8 of them keys; DeepSeek V3). The shares of attention come from Llama's rows, what few or short rows of norms take
from those of 128 columns and of 1024 rows; nothing comes from the others.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from kernel_rows import Kernel, attend, gradient, new
from torch.nn import functional as F
from torch.nn.attention import SDPBackend

_ATEN, _CUDNN = torch.ops.aten, SDPBackend.CUDNN_ATTENTION
_EPSILON = 1e-5

# Rows, columns, microseconds forward and backward.
_RMS_NORMS = (
    (16384, 4096, 79.8, 222.8),
    (8192, 8192, 102.2, 260.2),
    (4096, 16384, 112.1, 261.2),
    (8192, 5120, 53.8, 171.7),
    (8192, 4096, 43.1, 114.3),
    (4096, 6144, 36.0, 104.3),
    (4096, 8192, 53.2, 132.4),
    (2048, 4096, 12.3, 29.5),
    (4096, 2048, 12.6, 34.8),
    (16384, 128, 12.7, 50.8),
    (8192, 128, 7.5, 27.3),
)
# Tokens, whether causal, milliseconds forward and backward.
_ATTENTION = (
    (2048, True, 0.142, 0.464),
    (4096, True, 0.465, 1.450),
    (8192, True, 1.708, 5.083),
    (16384, True, 6.531, 19.002),
    (32768, True, 25.566, 75.688),
    (2048, False, 0.217, 0.681),
    (4096, False, 0.819, 2.453),
    (8192, False, 3.182, 9.262),
    (16384, False, 12.524, 35.947),
    (32768, False, 50.769, 153.841),
)

# DeepSeek V3's 128 heads: tokens, milliseconds forward. (Its backward was a deterministic one, which torch's never is.)
_TWO_WIDTHS = ((2048, 0.330), (4096, 1.148), (8192, 4.278))


def h200() -> Iterator[Kernel]:
    for rows, columns, forward, backward in _RMS_NORMS:
        yield from _rms_norm(rows, columns, forward, backward)
    yield from _layer_norm()
    for tokens, is_causal, forward, backward in _ATTENTION:
        yield from _attention(tokens, is_causal, forward, backward)
    for tokens, forward in _TWO_WIDTHS:
        yield _of_two_widths(tokens, forward)


def _rms_norm(rows: int, columns: int, forward: float, backward: float) -> Iterator[Kernel]:
    x, weight = new(rows, columns), new(columns)
    _, scale = _ATEN._fused_rms_norm(x, [columns], weight, _EPSILON)
    yield Kernel("cudnn", f"rms_norm, bfloat16, {rows} x {columns}", forward, lambda: F.rms_norm(x, (columns,), weight))
    yield Kernel("cudnn", "its backward", backward, lambda: _ATEN._fused_rms_norm_backward(x, x, [columns], scale, weight, [True] * 2))


def _layer_norm() -> Iterator[Kernel]:
    rows, columns = 1024, 12288
    x, weight = new(rows, columns), new(columns)
    _, mean, scale = _ATEN.native_layer_norm(x, [columns], weight, weight, _EPSILON)
    back = _ATEN.native_layer_norm_backward
    yield Kernel("cudnn", f"layer_norm, bfloat16, {rows} x {columns}", 30.7, lambda: F.layer_norm(x, (columns,), weight, weight))
    yield Kernel("cudnn", "its backward", 60.7, lambda: back(x, x, [columns], mean, scale, weight, weight, [True] * 3))


def _attention(tokens: int, is_causal: bool, forward: float, backward: float) -> Iterator[Kernel]:
    q = new(1, tokens, 64, 128).transpose(1, 2).requires_grad_()
    k = new(1, tokens, 8, 128).transpose(1, 2).requires_grad_()
    run = lambda: attend(_CUDNN, q, k, k, is_causal=is_causal, enable_gqa=True)  # noqa: E731
    yield Kernel("cudnn", f"attention of cuDNN, {tokens}{', causal' if is_causal else ''}", 1e3 * forward, run)
    yield Kernel("cudnn", "its backward", 1e3 * backward, gradient(run(), q, k))


def _of_two_widths(tokens: int, forward: float) -> Kernel:
    q, v = (new(1, tokens, 128, width).transpose(1, 2) for width in (192, 128))
    run = lambda: attend(_CUDNN, q, q, v, is_causal=True)  # noqa: E731
    return Kernel("cudnn", f"attention of cuDNN, {tokens}, causal, heads of 192 and 128", 1e3 * forward, run)
