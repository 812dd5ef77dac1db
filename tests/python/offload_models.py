"""Tiny models for the tests of offload: one configuration for each architecture, random weights.

All through transformers' own classes. Also what the tests of layers share: a loss in the model's own
precision, comparisons, and a store that keeps copies.
"""

from __future__ import annotations

import contextlib
import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any
from unittest import mock

import torch

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "python_shim"))
torch.set_num_threads(1)  # of so small matrices threads make nothing but waiting
VOCABULARY, HIDDEN, MLP, HEADS, KV_HEADS, LAYERS = 61, 32, 40, 4, 2, 2

_COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": HIDDEN,
    "intermediate_size": MLP,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "max_position_embeddings": 4352,
    "use_cache": False,
    "pad_token_id": None,
    "bos_token_id": None,
    "eos_token_id": None,
}
_EXPERTS: dict[str, Any] = {"num_experts_per_tok": 2, "moe_intermediate_size": 16}
_ALTERNATING = ["sliding_attention", "full_attention"]
# What each architecture needs beside the common settings.
_EXTRA: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen2": {},
    "qwen3": {"head_dim": 8},
    "mistral": {"sliding_window": 24},
    "phi3": {},
    "olmo2": {},
    "cohere": {},
    "gemma2": {"head_dim": 8, "sliding_window": 24, "attn_implementation": "eager"},
    "gemma3_text": {"head_dim": 8, "sliding_window": 24, "layer_types": _ALTERNATING},
    "granite": {"residual_multiplier": 0.5, "attention_multiplier": 0.3},
    "smollm3": {"layer_types": ["full_attention", "full_attention"], "no_rope_layers": [1, 0]},
    "glm4": {"head_dim": 8},
    "starcoder2": {"sliding_window": 24},
    "gpt_neox": {"use_parallel_residual": True},
    "qwen3_moe": {**_EXPERTS, "num_experts": 4, "head_dim": 8},
    "gpt_oss": {
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "head_dim": 8,
        "sliding_window": 24,
        "layer_types": _ALTERNATING,
    },
    "qwen3_next": {
        **_EXPERTS,
        "num_experts": 4,
        "shared_expert_intermediate_size": 16,
        "head_dim": 8,
        "layer_types": ["linear_attention", "full_attention"],
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
    },
    "gpt2": {},
}
ARCHITECTURES = tuple(_EXTRA)


def make(
    architecture: str,
    dtype: torch.dtype = torch.float64,
    extra: dict[str, Any] | None = None,
    **changes: Any,
) -> torch.nn.Module:
    """A causal language model in training mode. Dropout is off unless `changes` say so.

    `extra` is what an architecture that is not among ARCHITECTURES needs.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    settings = {**_COMMON, **(_EXTRA[architecture] if extra is None else extra), **changes}
    default = None if extra is not None else "eager" if architecture == "gpt_oss" else "sdpa"
    attention = settings.pop("attn_implementation", default)
    if architecture == "gpt2":
        settings |= {"n_inner": settings.pop("intermediate_size"), "n_positions": 4352}
        settings |= {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0} | changes
    config = AutoConfig.for_model(architecture, **settings)
    config._experts_implementation = "eager"  # the grouped kernel knows no float64
    torch.manual_seed(7)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention)
    with torch.no_grad():  # norms begin at one, biases at zero: let their gradients differ
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model.to(dtype).train()


def layers_of(model: torch.nn.Module) -> torch.nn.ModuleList:
    """The decoder layers of one of these models."""
    body = model.base_model
    return body.h if hasattr(body, "h") else body.layers


def tokens(length: int, batch: int = 1, seed: int = 3) -> torch.Tensor:
    """Input ids: batch x length."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, VOCABULARY, (batch, length), generator=generator)


def body_loss(model: torch.nn.Module, ids: torch.Tensor, **kwargs: Any) -> torch.Tensor:
    """A scalar that depends on every row of the body's output, in the model's own precision.

    The models' own losses are computed in float32.
    """
    hidden = model.base_model(input_ids=ids, **kwargs).last_hidden_state
    weights = torch.linspace(-1.0, 1.0, hidden.numel(), dtype=hidden.dtype, device=hidden.device)
    weights = weights.view_as(hidden)
    return (hidden * weights).sum() / hidden.shape[1]


@contextlib.contextmanager
def in_double() -> Iterator[None]:
    """Models compute norms and softmax in float32 whatever their precision; here in float64."""

    def doubled(function: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            args = tuple(torch.float64 if value is torch.float32 else value for value in args)
            if kwargs.get("dtype") is torch.float32:
                kwargs["dtype"] = torch.float64
            return function(*args, **kwargs)

        return call

    with (
        mock.patch.object(torch.Tensor, "float", torch.Tensor.double),
        mock.patch.object(torch.Tensor, "to", doubled(torch.Tensor.to)),
        mock.patch.object(torch.nn.functional, "softmax", doubled(torch.nn.functional.softmax)),
    ):
        yield


def gradients(model: torch.nn.Module, *args: Any, **kwargs: Any) -> dict[str, torch.Tensor]:
    """The loss and every parameter's gradient, by name, of body_loss(model, ...)."""
    model.zero_grad(set_to_none=True)
    is_double = next(model.parameters()).dtype == torch.float64
    with in_double() if is_double else contextlib.nullcontext():
        loss = body_loss(model, *args, **kwargs)
        loss.backward()
    found = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    return {"loss": loss.detach(), **found}


def worst_error(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    """The largest error of a tensor, relative to its largest element, or to a millionth of the largest of all.

    A gradient may be zero but for rounding (queries' and keys' over a single token): which of those tiny numbers come
    out is the processor's affair.
    """
    assert found.keys() == expected.keys()
    least = 1e-6 * max(_largest(value) for value in expected.values())
    return max(
        _largest(found[name].detach().double() - value.detach().double()) / max(_largest(value), least)
        for name, value in expected.items()
    )


def _largest(values: torch.Tensor) -> float:
    return float(values.detach().abs().max())


def all_of(policy: Any) -> Any:
    """For wrap_layers: the same policy for every piece of every layer."""
    return lambda layer, spans: [policy] * len(spans)


def assert_same_bits(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []


class CopyStore:
    """A store that keeps copies and gives back others: nothing may depend on a tensor's identity.

    Knows how many bytes it holds, and was asked to hold. Plays a host without limit.
    """

    held_bytes = 0  # on the device
    is_native = False

    def __init__(self) -> None:
        self.live = 0
        self.taken = 0
        self.prefetched = 0
        self.layers = 0

    def save(self, tensor: torch.Tensor) -> _Copy:
        assert tensor.is_contiguous() and not tensor.requires_grad
        return _Copy(self, tensor)

    def save_all(self, tensors: Sequence[torch.Tensor]) -> list[_Copy]:
        return [self.save(tensor) for tensor in tensors]

    def layer_ended(self) -> None:
        self.layers += 1


class _Copy:
    def __init__(self, store: CopyStore, tensor: torch.Tensor) -> None:
        self.size_bytes = self.swapped_bytes = tensor.nbytes
        self._store, self._copy = store, tensor.clone()
        store.live += tensor.nbytes
        store.taken += tensor.nbytes

    def prefetch(self) -> None:
        self._store.prefetched += 1

    def get(self) -> torch.Tensor:
        assert self._copy is not None, "asked for after its release"
        return self._copy.clone()

    def release(self) -> None:
        if self._copy is not None:
            self._store.live -= self.size_bytes
            self._copy = None

    def __del__(self) -> None:
        self.release()
