"""Whether one call of a causal language model has its loss computed over pieces."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import torch

from ._options import Options
from ._piece_size import device_bytes

_EVALUATION_SHARE = 8  # whole logits in evaluation may take this part of the device
_FLOAT32 = 4
# Arguments that make the output hold more than a loss: then the call is left to the class.
_NEEDS_ALL = ("output_hidden_states", "logits_to_keep", "num_logits_to_keep", "fused_lm_head")


@dataclasses.dataclass(frozen=True)
class HeadCall:
    is_cut: bool
    asks_for_cache: bool  # in training, where nobody can use it
    has_no_labels: bool  # in training: somebody makes the loss from whole logits
    positions: torch.Tensor | None  # in training: from now on they tell documents apart, see _uncached_positions()
    return_dict: bool
    changes: dict[str, Any]  # arguments that are given other values
    for_logits: dict[str, Any]  # arguments that make the class's forward do nothing but logits

    @staticmethod
    def of(
        model: Any, options: Options, signature: inspect.Signature, args: Any, kwargs: dict[str, Any]
    ) -> HeadCall:
        given = _by_name(signature, args, kwargs)
        known = signature.parameters
        for_logits: dict[str, Any] = {"return_dict": True}
        for_logits |= {name: None for name in ("input_ids", "inputs_embeds") if name in known}
        if "output_router_logits" in known:
            for_logits["output_router_logits"] = False
        return_dict = given.get("return_dict")
        if return_dict is None:
            return_dict = getattr(model.config, "return_dict", True)
        given.setdefault("output_hidden_states", getattr(model.config, "output_hidden_states", None))
        has_labels = _has_labels(given)
        is_cut = has_labels and _has_loss_only(given) and not _wants_logits(model, options, given)
        changes = {"return_dict": True} if is_cut else {}
        trains = _trains(model)
        if trains and "use_cache" in known and ("use_cache" in kwargs or not args):
            changes["use_cache"] = False  # transformers' default is to fill a cache
        return HeadCall(
            is_cut=is_cut,
            asks_for_cache="use_cache" in changes and bool(kwargs.get("use_cache")),
            has_no_labels=trains and not has_labels and _has_loss_only(given),
            positions=_uncached_positions(model, given) if "use_cache" in changes else None,
            return_dict=bool(return_dict),
            changes=changes,
            for_logits=for_logits,
        )

    def passed_on(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        """The arguments as the class's own forward is to see them."""
        return {k: v for k, v in kwargs.items() if k != "skip_logits"} | self.changes

    def for_logits_of(self, piece: torch.Tensor) -> dict[str, Any]:
        """`for_logits` with the piece as its input, which some classes (Gemma 4) ask for its shape."""
        known = self.for_logits
        return {**known, "inputs_embeds": piece} if "inputs_embeds" in known else known


def _trains(model: Any) -> bool:
    return bool(model.training) and torch.is_grad_enabled()


def _by_name(signature: inspect.Signature, args: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Every argument by its name. Empty for a call that the model itself will refuse."""
    try:
        bound = signature.bind(*args, **kwargs).arguments
    except TypeError:
        return {}
    further = [
        name for name, p in signature.parameters.items() if p.kind is inspect.Parameter.VAR_KEYWORD
    ]
    return {**bound, **{k: v for name in further for k, v in bound.get(name, {}).items()}}


def _has_labels(given: dict[str, Any]) -> bool:
    return given.get("labels") is not None or given.get("shift_labels") is not None


def _has_loss_only(given: dict[str, Any]) -> bool:
    # A tensor counts as asked for, whatever its value: reading it would wait for the device.
    return not any(torch.is_tensor(given.get(name)) or given.get(name) for name in _NEEDS_ALL)


def _uncached_positions(model: Any, given: dict[str, Any]) -> torch.Tensor | None:
    """The positions in which transformers looks for documents without the cache that the call would have filled;
    None if it does so in any case, or in none."""
    config, cache = model.config.get_text_config(), given.get("use_cache")
    has_cache = getattr(config, "use_cache", False) if cache is None else cache
    looks_anyway = "flash" in str(getattr(config, "_attn_implementation", ""))
    positions = given.get("position_ids")
    if not has_cache or looks_anyway or given.get("attention_mask") is not None:
        return None
    return positions if torch.is_tensor(positions) else None


def _wants_logits(model: Any, options: Options, given: dict[str, Any]) -> bool:
    """skip_logits as Liger's and transformers' Trainer use it; without it, evaluation may want them."""
    if given.get("skip_logits") is not None:
        return not given["skip_logits"]
    if _trains(model):
        return False
    if options.logits is not None:
        return options.logits
    tokens = given.get("labels")
    tokens = given["shift_labels"] if tokens is None else tokens
    words = model.config.get_text_config().vocab_size
    return bool(
        tokens.numel() * words * _FLOAT32 <= device_bytes(tokens.device) // _EVALUATION_SHARE
    )
