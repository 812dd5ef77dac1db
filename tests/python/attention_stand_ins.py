"""torch's fused attention operators of CUDA, computed on the CPU: same schemas, autograd's own formulas.

Each call is written down, with its arguments.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import torch
from ebbtide._offload import _attention_choice
from ebbtide._offload._attention_kernel import CudnnKernel, FlashKernel
from torch.nn.attention import SDPBackend

FLASH, CUDNN = "_scaled_dot_product_flash_attention", "_scaled_dot_product_cudnn_attention"
_KERNELS = {SDPBackend.FLASH_ATTENTION: FlashKernel(), SDPBackend.CUDNN_ATTENTION: CudnnKernel()}


@dataclasses.dataclass
class Calls:
    forward: list[str] = dataclasses.field(default_factory=list)
    backward: list[str] = dataclasses.field(default_factory=list)
    arguments: list[tuple[Any, ...]] = dataclasses.field(default_factory=list)  # of backwards


@contextlib.contextmanager
def operators_on_cpu() -> Iterator[Calls]:
    """The operators take tensors of the CPU in the block. Nobody uses them there by himself."""
    calls = Calls()
    library = torch.library.Library("aten", "IMPL")
    library.impl(FLASH, _flash(calls), "CPU")
    library.impl(FLASH + "_backward", _flash_backward(calls), "CPU")
    library.impl(CUDNN, _cudnn(calls), "CPU")
    library.impl(CUDNN + "_backward", _cudnn_backward(calls), "CPU")
    try:
        yield calls
    finally:
        library._destroy()


def take_cpu_tensors(monkeypatch: Any) -> None:
    """Offload knows these operators for tensors of the CPU, too."""
    for backend, kernel in _KERNELS.items():
        monkeypatch.setitem(_attention_choice._KERNELS, ("cpu", backend), kernel)


def torch_chooses(monkeypatch: Any, backend: SDPBackend) -> list[dict[str, Any]]:
    """Whatever torch is asked, it answers `backend`. What it was asked."""
    asked = []

    def choose(q: Any, k: Any, v: Any, mask: Any, dropout: Any, is_causal: Any, **rest: Any) -> int:
        trains = torch.is_grad_enabled() and q.requires_grad
        asked.append({"mask": mask, "dropout": dropout, "is_causal": is_causal, "trains": trains, **rest})
        return int(backend.value)

    monkeypatch.setattr(torch, "_fused_sdp_choice", choose)
    return asked


def _forward(q: Any, k: Any, v: Any, is_causal: bool, scale: Any) -> tuple[Any, Any]:
    """The output in the layout of q, as the operators of CUDA have it."""
    share = q.shape[1] // k.shape[1]
    k, v = (part.repeat_interleave(share, dim=1) for part in (k, v))
    out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, is_causal, scale=scale)
    return torch.empty_like(q).copy_(out), lse.contiguous()


def _backward(dout: Any, q: Any, k: Any, v: Any, out: Any, lse: Any, is_causal: bool, scale: Any) -> Any:
    share = q.shape[1] // k.shape[1]
    repeated = [part.repeat_interleave(share, dim=1) for part in (k, v)]
    dq, dk, dv = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
        dout, q, *repeated, out, lse, 0.0, is_causal, scale=scale
    )
    return dq, dk.unflatten(1, (-1, share)).sum(2), dv.unflatten(1, (-1, share)).sum(2)


def _flash(calls: Calls) -> Callable[..., Any]:
    def run(q, k, v, dropout_p=0.0, is_causal=False, return_debug_mask=False, *, scale=None):
        calls.forward.append(FLASH)
        out, lse = _forward(q, k, v, is_causal, scale)
        seed = torch.zeros(2, dtype=torch.uint64)
        return out, lse, None, None, q.shape[2], k.shape[2], seed, torch.empty(0, dtype=torch.uint64), torch.empty(0)

    return run


def _flash_backward(calls: Calls) -> Callable[..., Any]:
    def run(*args, scale=None):
        calls.backward.append(FLASH)
        calls.arguments.append((*args, scale))
        dout, q, k, v, out, lse, *_, is_causal, _, _ = args
        return _backward(dout, q, k, v, out, lse, is_causal, scale)

    return run


def _cudnn(calls: Calls) -> Callable[..., Any]:
    def run(q, k, v, bias, with_lse, dropout_p=0.0, is_causal=False, return_debug_mask=False, *, scale=None):
        assert bias is None and with_lse and dropout_p == 0.0 and not return_debug_mask
        calls.forward.append(CUDNN)
        out, lse = _forward(q, k, v, is_causal, scale)
        seed, offset = (torch.zeros((), dtype=torch.long) for _ in range(2))
        return out, lse.unsqueeze(-1), None, None, q.shape[2], k.shape[2], seed, offset, None

    return run


def _cudnn_backward(calls: Calls) -> Callable[..., Any]:
    def run(*args, scale=None):
        calls.backward.append(CUDNN)
        calls.arguments.append((*args, scale))
        dout, q, k, v, out, lse, *_, is_causal = args
        assert lse.shape == (*q.shape[:3], 1) and lse.is_contiguous()
        return _backward(dout, q, k, v, out, lse.squeeze(-1), is_causal, scale)

    return run
