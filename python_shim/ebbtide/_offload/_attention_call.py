"""One call of a Hugging Face attention function, and what it asks of torch's attention."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from typing import Any

import torch

Parts = tuple[torch.Tensor, ...]
Attend = Callable[..., torch.Tensor]  # (*whole-length parts) -> out

_SDPA = "transformers.integrations.sdpa_attention"


@dataclasses.dataclass(frozen=True)
class FusedCall:
    """What torch's scaled_dot_product_attention is told beside q, k, v: no mask and no dropout."""

    is_causal: bool
    scale: float | None
    enable_gqa: bool  # heads of k and v each serve several of q


@dataclasses.dataclass(frozen=True)
class AttentionCall:
    """`function(module, q, k, v, *args, **kwargs)`; all tensors among the arguments are whole-length."""

    function: Callable[..., Any]
    module: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def __call__(self, *parts: torch.Tensor) -> torch.Tensor:
        return self.function(self.module, *parts, *self.args, **self.kwargs)[0]

    def as_fused(self, parts: Parts) -> FusedCall | None:
        """The same attention of these q, k, v as a call of torch's own; None if it is another one.

        That is transformers' SDPA attention without mask, bias and dropout, which hands q, k, v over as they
        are; causal, unless the module or its caller says otherwise.
        """
        if not _is_sdpa(self.function) or any(arg is not None for arg in self.args):
            return None
        asked = {name: value for name, value in self.kwargs.items() if value is not None}
        if asked.get("dropout", 0.0) or any(
            name in asked for name in ("attention_mask", "position_bias", "cache", "softcap")
        ):
            return None
        q, k, v = parts
        shares = getattr(self.module, "num_key_value_groups", 1) > 1
        if shares and not sys.modules[_SDPA].use_gqa_in_sdpa(None, k, v):  # it would repeat k and v
            return None
        causal = asked.get("is_causal", getattr(self.module, "is_causal", True))
        return FusedCall(bool(causal) and q.shape[2] > 1, asked.get("scaling"), shares)


def _is_sdpa(function: Callable[..., Any]) -> bool:
    module = sys.modules.get(_SDPA)
    return module is not None and function is module.sdpa_attention_forward
