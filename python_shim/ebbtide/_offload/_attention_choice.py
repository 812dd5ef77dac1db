"""Which of torch's attention kernels a layer's own attention would run on: torch itself is asked.

Note [torch chooses]
What torch prefers depends on the device, on its version and cuDNN's, on shapes, and on what the user allows
(`sdpa_kernel`, deterministic algorithms). Another kernel has other bits, so nothing of that is guessed: at
each call of a layer torch is asked the question that scaled_dot_product_attention asks, as in training. That
takes less than 20 us. An answer is not kept, since what the user allows may be another the next time.
"""

from __future__ import annotations

import torch
from torch.nn.attention import SDPBackend

from ._attention_call import Attend, AttentionCall, FusedCall, Parts
from ._attention_kernel import CudnnKernel, FlashKernel, Kernel

_KERNELS: dict[tuple[str, SDPBackend], Kernel] = {
    ("cuda", SDPBackend.FLASH_ATTENTION): FlashKernel(),
    ("cuda", SDPBackend.CUDNN_ATTENTION): CudnnKernel(),
}


def fused_for(attend: Attend, parts: Parts) -> tuple[FusedCall, Kernel] | None:
    """The call and the kernel by which torch would train this attention; None: leave it to the model's own."""
    kind = parts[0].device.type
    if not any(known == kind for known, _ in _KERNELS):
        return None
    if not isinstance(attend, AttentionCall) or not _are_plain(parts, kind):
        return None
    call = attend.as_fused(parts)
    kernel = None if call is None else _KERNELS.get((kind, _choice(call, parts)))
    return None if call is None or kernel is None else (call, kernel)


def _are_plain(parts: Parts, kind: str) -> bool:
    """Tensors that the operators take as they are: nobody shards, casts or pads them on the way there."""
    q, k, v = parts
    return (
        all(type(part) is torch.Tensor and part.dtype == q.dtype for part in parts)
        and not (torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) != q.dtype)
        and q.shape[-1] % 8 == 0
        and k.shape[1] == v.shape[1]
    )


def _choice(call: FusedCall, parts: Parts) -> SDPBackend:
    """Raises what the model's own call would raise where all that could do it is forbidden."""
    ask = getattr(torch, "_fused_sdp_choice", None)
    if ask is None:  # another torch: nobody knows
        return SDPBackend.ERROR
    q, k, v = parts
    with torch.enable_grad():  # some kernels have no backward for what their forward can do
        answer = ask(
            q.detach().requires_grad_(), k, v, None, 0.0, call.is_causal,
            scale=call.scale, enable_gqa=call.enable_gqa,
        )  # fmt: skip
    return SDPBackend(answer)
