"""What of a module is offloaded, where it holds several models."""

from __future__ import annotations

import torch

from .._errors import EbbtideError, print_line
from ._causal_lm import find_causal_lms
from ._layer_find import find_layers, learns


def members(model: torch.nn.Module) -> list[torch.nn.Module]:
    """Every causal language model in it that learns something, or all if none does; without any, itself.

    Of models on the same layers the first.
    """
    found = find_causal_lms(model)
    if len(found) > 1:
        found = [one for one in found if learns(one)] or found
    apart: list[torch.nn.Module] = []
    cut: set[torch.nn.Module] = set()
    for one in found:
        layers = set(find_layers(one).values())
        if not layers & cut:
            apart.append(one)
        cut |= layers
    return apart or [model]


def tell_left_out(model: torch.nn.Module, taken: list[torch.nn.Module], strict: bool) -> None:
    """Says what of the module learns, and is in none of `taken`, nor offloaded already. EbbtideError under `strict`."""
    for line in (_heads_left(model, taken), _layers_left(model, taken)):
        if line and strict:
            raise EbbtideError(line)
        if line:
            print_line("warning", f"offload: {line}")


def _heads_left(model: torch.nn.Module, taken: list[torch.nn.Module]) -> str:
    left = [type(one).__name__ for one in find_causal_lms(model) if one not in taken and learns(one)]
    return f"the head of {left[0]} stays whole: its layers belong to another model, too" if left else ""


def _layers_left(model: torch.nn.Module, taken: list[torch.nn.Module]) -> str:
    inside = {part for one in taken for part in one.modules()}
    left = [
        name
        for name, layer in find_layers(model).items()
        if layer not in inside and learns(layer) and not hasattr(layer.forward, "tally")
    ]
    more = f" and {len(left) - 1} more" if len(left) > 1 else ""
    remedy = "call ebbtide.offload on the module that holds them, too"
    return f"layers outside of the language model ({left[0]}{more}) are not offloaded; {remedy}" if left else ""
