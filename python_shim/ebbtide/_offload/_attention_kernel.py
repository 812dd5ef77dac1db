"""torch's flash attention operators, forward and backward, with fewer heads of k and v than of q."""

from __future__ import annotations

import dataclasses
from typing import Protocol

import torch

from ._attention_call import FlashCall


@dataclasses.dataclass
class FlashResult:
    """The forward's: `out` is batch x heads x tokens x width, `lse` (float32) batch x heads x tokens."""

    out: torch.Tensor
    lse: torch.Tensor
    seed: torch.Tensor
    offset: torch.Tensor


class Kernel(Protocol):
    """q: batch x heads x tokens x width; k, v: the same with heads that each serve several of q."""

    def forward(
        self, call: FlashCall, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor
    ) -> FlashResult: ...

    def backward(
        self,
        call: FlashCall,
        dout: torch.Tensor,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        result: FlashResult,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]: ...


class CudaKernel:
    """aten::_scaled_dot_product_flash_attention."""

    def forward(
        self, call: FlashCall, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor
    ) -> FlashResult:
        out, lse, _, _, _, _, seed, offset, _ = torch.ops.aten._scaled_dot_product_flash_attention(
            q, k, v, 0.0, call.is_causal, False, scale=call.scale
        )
        return FlashResult(out, lse, seed, offset)

    def backward(
        self,
        call: FlashCall,
        dout: torch.Tensor,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        result: FlashResult,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return torch.ops.aten._scaled_dot_product_flash_attention_backward(
            dout, q, k, v, result.out, result.lse, None, None, q.shape[2], k.shape[2],
            0.0, call.is_causal, result.seed, result.offset, scale=call.scale,
        )  # fmt: skip


class CpuKernel:
    """aten::_scaled_dot_product_flash_attention_for_cpu, which wants as many heads of k as of q."""

    def forward(
        self, call: FlashCall, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor
    ) -> FlashResult:
        share = q.shape[1] // k.shape[1]
        out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            q, _repeat(k, share), _repeat(v, share), 0.0, call.is_causal, scale=call.scale
        )
        return FlashResult(out, lse, torch.empty(0), torch.empty(0))

    def backward(
        self,
        call: FlashCall,
        dout: torch.Tensor,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        result: FlashResult,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        share = q.shape[1] // k.shape[1]
        dq, dk, dv = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
            dout, q, _repeat(k, share), _repeat(v, share), result.out, result.lse,
            0.0, call.is_causal, scale=call.scale,
        )  # fmt: skip
        return dq, dk.unflatten(1, (-1, share)).sum(2), dv.unflatten(1, (-1, share)).sum(2)


def _repeat(heads: torch.Tensor, share: int) -> torch.Tensor:
    return heads.repeat_interleave(share, dim=1)


def kernel_for(device: torch.device) -> Kernel:
    return CudaKernel() if device.type == "cuda" else CpuKernel()
