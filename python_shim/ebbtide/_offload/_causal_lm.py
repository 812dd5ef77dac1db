"""Where a Hugging Face causal language model has its parts, whatever is wrapped around it."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def find_causal_lm(model: nn.Module) -> Any | None:
    """The causal language model in `model`: itself, or inside of DDP, PEFT and the like. Or None."""
    return next((part for part in model.modules() if _is_causal_lm(part)), None)


def _is_causal_lm(module: nn.Module) -> bool:
    base = getattr(module, "base_model_prefix", "")
    if not base or base not in module._modules or not hasattr(type(module), "loss_function"):
        return False
    return module.get_output_embeddings() is not None  # type: ignore[operator,no-any-return]


def final_norm_name(base: nn.Module) -> str | None:
    """The base model's last direct child with nothing but vectors of one length: its final norm.

    A guess from structure; the self-check tells whether it was right.
    """
    found = None
    for name, child in base.named_children():
        shapes = {tuple(parameter.shape) for parameter in child.parameters()}
        if len(shapes) == 1 and len(next(iter(shapes))) == 1:
            found = name
    return found


def owned_parameters(modules: list[nn.Module]) -> list[tuple[nn.Module, str, nn.Parameter]]:
    """Every trainable parameter that the modules hold themselves: holder, name, parameter."""
    return [
        (module, name, parameter)
        for module in modules
        for name, parameter in module._parameters.items()
        if parameter is not None and parameter.requires_grad
    ]


def device_of(model: nn.Module) -> torch.device:
    return next(model.parameters()).device
