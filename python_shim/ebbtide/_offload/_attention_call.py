"""One call of a Hugging Face attention function, and whether torch's flash kernels answer it."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from typing import Any

import torch

Parts = tuple[torch.Tensor, ...]
Attend = Callable[..., torch.Tensor]  # (*whole-length parts) -> out

_FLASH_DTYPES = (torch.float16, torch.bfloat16)
_WIDEST_HEAD = 256


@dataclasses.dataclass(frozen=True)
class FlashCall:
    """What torch's flash kernels need to know beside q, k, v."""

    is_causal: bool
    scale: float | None


@dataclasses.dataclass(frozen=True)
class AttentionCall:
    """`function(module, q, k, v, *args, **kwargs)`; all tensors among the arguments are whole-length."""

    function: Callable[..., Any]
    module: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def __call__(self, *parts: torch.Tensor) -> torch.Tensor:
        return self.function(self.module, *parts, *self.args, **self.kwargs)[0]

    def as_flash(self, tokens: int) -> FlashCall | None:
        """The same attention for the flash kernels; None if it is another one, or they cannot do it.

        That is transformers' SDPA attention without mask, bias and dropout; causal, unless the module
        or its caller says otherwise.
        """
        if not _is_sdpa(self.function) or any(arg is not None for arg in self.args):
            return None
        asked = {name: value for name, value in self.kwargs.items() if value is not None}
        if asked.get("dropout", 0.0) or any(
            name in asked for name in ("attention_mask", "position_bias", "cache", "softcap")
        ):
            return None
        causal = asked.get("is_causal", getattr(self.module, "is_causal", True))
        return FlashCall(bool(causal) and tokens > 1, asked.get("scaling"))


def _is_sdpa(function: Callable[..., Any]) -> bool:
    module = sys.modules.get("transformers.integrations.sdpa_attention")
    return module is not None and function is module.sdpa_attention_forward


def fits_flash(parts: Parts) -> bool:
    """Whether torch would, and may, use its CUDA flash kernels for these q, k, v."""
    q, k, v = parts
    return (
        q.is_cuda
        and torch.backends.cuda.flash_sdp_enabled()
        and q.dtype in _FLASH_DTYPES
        and k.dtype == v.dtype == q.dtype
        and q.shape[-1] == k.shape[-1] == v.shape[-1]
        and q.shape[-1] <= _WIDEST_HEAD
        and q.shape[-1] % 8 == 0
        and q.shape[1] % k.shape[1] == 0
        and torch.cuda.get_device_capability(q.device) >= (8, 0)
    )
