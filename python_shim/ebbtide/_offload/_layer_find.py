"""Which modules of a model are its layers, and what one of their pieces needs."""

from __future__ import annotations

import inspect

import torch

from ._attention_interface import is_decoder_layer
from ._cut import offers_parts


def find_layers(model: torch.nn.Module) -> dict[str, torch.nn.Module]:
    """By name, in order: modules that offer their parts, and the layers of transformers' models.

    Of nested ones the outermost counts.
    """
    found: dict[str, torch.nn.Module] = {}
    for name, module in model.named_modules():
        if not (offers_parts(module) or is_decoder_layer(module)):
            continue
        if not any(name.startswith(outer + ".") for outer in found):
            found[name] = module
    return found


def learns(module: torch.nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())


def takes_packed(layer: torch.nn.Module) -> bool:
    """Whether its forward must be told where sequences end in its input: that has no batch then, only rows of all."""
    parameter = inspect.signature(type(layer).forward).parameters.get("cu_seqlens")
    return parameter is not None and parameter.default is inspect.Parameter.empty


def bytes_per_token(layer: torch.nn.Module, itemsize: int) -> int:
    """An estimate of what one token of a piece holds at the peak of its backward.

    The results of the layer's matrix products, each as activation, as gradient, and once more as a
    temporary; of experts one is counted.
    """
    rows = sum(max(p.shape[-2:]) if p.dim() > 2 else p.shape[0] for p in layer.parameters() if p.dim() > 1)
    return 3 * itemsize * rows


def width_of(layer: torch.nn.Module) -> tuple[int, torch.dtype]:
    """Width and type of its input, a guess: those of its last vector, a norm's weight or an output's bias."""
    vectors = [(p.shape[0], p.dtype) for p in layer.parameters() if p.dim() == 1]
    return vectors[-1] if vectors else (0, torch.float32)


def heads_of(layer: torch.nn.Module) -> tuple[int, int] | None:
    """Heads of q, and of k and v, as its configuration says; None where it has none that does."""
    for module in layer.modules():
        heads = getattr(getattr(module, "config", None), "num_attention_heads", None)
        if isinstance(heads, int) and heads > 0:
            of_k = getattr(module.config, "num_key_value_heads", None) or heads
            return (heads, of_k) if isinstance(of_k, int) and heads % of_k == 0 else None
    return None


def weight_bytes(layer: torch.nn.Module) -> int:
    return sum(parameter.nbytes for parameter in layer.parameters())
