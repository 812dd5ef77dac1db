"""torch's fused attention operators, forward and backward, with fewer heads of k and v than of q.

Note [Layouts that cuDNN's plans expect]
torch 2.11 keeps cuDNN's plans by the sizes and strides of q, k, v, but a plan holds those of the output and of
its gradient, too: where the model's own attention ran backward before (the self-check's), its plan is taken. So
the output must lie in memory as torch's forward laid it, in the order of q's dimensions, and its gradient as the
model's layer hands it over, token by token.
"""

from __future__ import annotations

import dataclasses
from typing import Protocol

import torch

from ._attention_call import FusedCall

Gradients = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


@dataclasses.dataclass
class FusedResult:
    """The forward's. `out`: batch x heads x tokens x width; `lse` (float32): batch x heads x tokens, x 1 of some."""

    out: torch.Tensor
    lse: torch.Tensor
    seed: torch.Tensor
    offset: torch.Tensor


class Kernel(Protocol):
    """q: batch x heads x tokens x width; k, v: the same with heads that each serve several of q."""

    def forward(
        self, call: FusedCall, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor
    ) -> FusedResult: ...

    def backward(
        self,
        call: FusedCall,
        dout: torch.Tensor,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        result: FusedResult,
    ) -> Gradients: ...


class FlashKernel:
    """aten::_scaled_dot_product_flash_attention."""

    def forward(
        self, call: FusedCall, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor
    ) -> FusedResult:
        out, lse, _, _, _, _, seed, offset, _ = torch.ops.aten._scaled_dot_product_flash_attention(
            q, k, v, 0.0, call.is_causal, False, scale=call.scale
        )
        return FusedResult(out, lse, seed, offset)

    def backward(
        self,
        call: FusedCall,
        dout: torch.Tensor,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        result: FusedResult,
    ) -> Gradients:
        return torch.ops.aten._scaled_dot_product_flash_attention_backward(
            dout, q, k, v, result.out, result.lse, None, None, q.shape[2], k.shape[2],
            0.0, call.is_causal, result.seed, result.offset, scale=call.scale,
        )  # fmt: skip


class CudnnKernel:
    """aten::_scaled_dot_product_cudnn_attention."""

    def forward(
        self, call: FusedCall, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor
    ) -> FusedResult:
        out, lse, _, _, _, _, seed, offset, _ = torch.ops.aten._scaled_dot_product_cudnn_attention(
            q, k, v, None, True, 0.0, call.is_causal, False, scale=call.scale
        )
        return FusedResult(out, lse, seed, offset)

    def backward(
        self,
        call: FusedCall,
        dout: torch.Tensor,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        result: FusedResult,
    ) -> Gradients:
        out = _laid_out_like(q, result.out)  # Note [Layouts that cuDNN's plans expect]
        return torch.ops.aten._scaled_dot_product_cudnn_attention_backward(
            dout, q, k, v, out, result.lse, result.seed, result.offset, None, None, None,
            q.shape[2], k.shape[2], 0.0, call.is_causal, scale=call.scale,
        )  # fmt: skip


def _laid_out_like(other: torch.Tensor, tensor: torch.Tensor) -> torch.Tensor:
    """`tensor`, or a copy, whose dimensions follow each other in memory as those of `other` do."""
    order = sorted(range(other.dim()), key=other.stride, reverse=True)
    strides = [tensor.stride(dim) for dim in order if tensor.shape[dim] > 1]
    if strides == sorted(strides, reverse=True):
        return tensor
    return tensor.permute(order).contiguous().permute([order.index(dim) for dim in range(tensor.dim())])
