"""Where a Hugging Face causal language model has its parts, whatever is wrapped around it."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import nn


def find_causal_lm(model: nn.Module) -> Any | None:
    """The causal language model in `model`: itself, or inside of DDP, PEFT and the like. Or None."""
    return next(iter(find_causal_lms(model)), None)


def find_causal_lms(model: nn.Module) -> list[Any]:
    """All of them, in order; of nested ones the outermost."""
    found: dict[str, Any] = {}
    for name, part in model.named_modules():
        if not any(outer == "" or name.startswith(outer + ".") for outer in found) and _is_causal_lm(part):
            found[name] = part
    return list(found.values())


def _is_causal_lm(module: nn.Module) -> bool:
    if not hasattr(type(module), "loss_function") or not hasattr(module, "get_output_embeddings"):
        return False
    try:
        return module.get_output_embeddings() is not None and base_place(module) is not None
    except NotImplementedError:  # transformers, of models (CLIP, wav2vec 2.0) whose embeddings it does not find
        return False


def base_place(model: Any) -> tuple[nn.Module, str] | None:
    """The module that holds the base model (embeddings, layers, final norm), and its name there.

    The child that the class names as its base, or else the one with the embeddings. If that has nothing
    of its own but one part, and the class's forward names that part (OPT's decoder), it is the base.
    """
    name = getattr(model, "base_model_prefix", "")
    if name not in model._modules:
        embeddings = model.get_input_embeddings()
        holding = (n for n, child in model.named_children() if embeddings in child.modules())
        name = next(holding, "")
    if not name or model._modules[name] is model.get_input_embeddings():
        return None
    holder: nn.Module = model
    named = _names_in(type(model).forward)
    while len(parts := list(holder._modules[name]._modules)) == 1 and parts[0] in named:  # type: ignore[union-attr]
        holder, name = holder._modules[name], parts[0]  # type: ignore[assignment]
    return holder, name


def _names_in(function: Any) -> tuple[str, ...]:
    """Attributes that its code asks for, whatever decorates it."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    return () if code is None else code.co_names


def final_norm_name(base: nn.Module) -> str | None:
    """The base model's last direct child with nothing but vectors of one length, the longest: its final norm.

    A guess from structure; the self-check tells whether it was right.
    """
    found, longest = None, 0
    for name, child in base.named_children():
        shapes = {tuple(parameter.shape) for parameter in child.parameters()}
        if len(shapes) == 1 and len(shape := next(iter(shapes))) == 1 and shape[0] >= longest:
            found, longest = name, shape[0]
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
