"""Makes the models that are measured, directly on the device and without initial values.

Billions of random numbers on a CPU would take longer than the measurement; --real-values in
run_row.py asks for them where the results are to mean something.
"""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Callable, Iterator

import torch
import torch.utils.checkpoint
from plain_llama import PlainLlama
from scenarios import Scenario


class EncoderWithLoss(torch.nn.Module):
    """A plain nn.TransformerEncoder with embedding and head, called like a transformers model."""

    def __init__(self, row: Scenario) -> None:
        super().__init__()
        layer = torch.nn.TransformerEncoderLayer(
            row.hidden, row.heads, row.mlp, dropout=0.0, batch_first=True, norm_first=True
        )
        self.embed = torch.nn.Embedding(row.vocabulary, row.hidden)
        self.encoder = torch.nn.TransformerEncoder(layer, row.layers, enable_nested_tensor=False)
        self.head = torch.nn.Linear(row.hidden, row.vocabulary, bias=False)
        self.checkpointing = row.checkpointing

    def forward(
        self,
        input_ids: torch.Tensor,
        labels: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        x = self.embed(input_ids)
        padding = None if attention_mask is None else attention_mask == 0
        for layer in self.encoder.layers:
            if self.checkpointing and self.training:
                x = torch.utils.checkpoint.checkpoint(
                    layer, x, None, padding, use_reentrant=False
                )
            else:
                x = layer(x, None, padding)
        logits = self.head(x).float()
        return torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), labels.flatten(), ignore_index=-100
        )


def _llama(row: Scenario) -> torch.nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=row.vocabulary,
            hidden_size=row.hidden,
            intermediate_size=row.mlp,
            num_hidden_layers=row.layers,
            num_attention_heads=row.heads,
            num_key_value_heads=row.kv_heads,
            max_position_embeddings=row.lengths[1],
            use_cache=False,
        )
    )


def _qwen3(row: Scenario) -> torch.nn.Module:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=row.vocabulary,
            hidden_size=row.hidden,
            intermediate_size=row.mlp,
            num_hidden_layers=row.layers,
            num_attention_heads=row.heads,
            num_key_value_heads=row.kv_heads,
            head_dim=row.hidden // row.heads,
            max_position_embeddings=row.lengths[1],
            use_cache=False,
        )
    )


def _gpt2(row: Scenario) -> torch.nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=row.vocabulary,
            n_embd=row.hidden,
            n_inner=row.mlp,
            n_layer=row.layers,
            n_head=row.heads,
            n_positions=row.lengths[1],
            use_cache=False,
        )
    )


_MAKERS: dict[str, Callable[[Scenario], torch.nn.Module]] = {
    "llama": _llama,
    "qwen3": _qwen3,
    "gpt2": _gpt2,
    "encoder": EncoderWithLoss,
    "plain": PlainLlama,
}


@contextlib.contextmanager
def _without_initial_values() -> Iterator[None]:
    """torch's layers call torch.nn.init by name; transformers also has a switch of its own."""
    saved = {name: getattr(torch.nn.init, name) for name in dir(torch.nn.init) if name[-1] == "_"}
    saved = {name: function for name, function in saved.items() if not name.startswith("_")}
    with contextlib.ExitStack() as stack:
        if importlib.util.find_spec("transformers"):
            from transformers.initialization import no_init_weights

            stack.enter_context(no_init_weights())
        for name, function in saved.items():
            stack.callback(setattr, torch.nn.init, name, function)
            setattr(torch.nn.init, name, lambda tensor, *_, **__: tensor)
        yield


def make_model(row: Scenario, device: torch.device, real_values: bool) -> torch.nn.Module:
    previous = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, row.dtype))
    try:
        initial = contextlib.nullcontext() if real_values else _without_initial_values()
        with torch.device(device), initial:
            model = _MAKERS[row.model](row)
    finally:
        torch.set_default_dtype(previous)
    if row.checkpointing:
        for name in ("activation_checkpointing_enable", "gradient_checkpointing_enable"):
            if hasattr(model, name):  # transformers' name, new and old; our own models read the row
                getattr(model, name)({"use_reentrant": False})
                break
    return model.train()
