"""Models of width 2048 whose layers are not like Llama's with fused attention, directly on the device.

Attention that saves its scores (eager), or layers that cannot be cut and run whole: state spaces, convolutions, two
attentions, a decoder that looks at an encoder.
"""

from __future__ import annotations

from typing import Any

import torch

WORDS = 8192


def _kinds(layers: int, *kinds: str) -> list[str]:
    return (list(kinds) * layers)[:layers]


def _settings(name: str, layers: int) -> dict[str, Any]:
    """Beside what all have in common."""
    return {
        "gemma2": {"head_dim": 256, "sliding_window": 4096},
        "gpt_oss": {
            "head_dim": 64, "sliding_window": 128, "num_local_experts": 4, "num_experts_per_tok": 2,
            "layer_types": _kinds(layers, "sliding_attention", "full_attention"),
        },
        "llama": {},
        "diffllama": {},
        "falcon": {"num_kv_heads": 4, "new_decoder_architecture": True, "alibi": False, "ffn_hidden_size": 8192},
        "lfm2": {"layer_types": _kinds(layers, "conv", "full_attention")},
        "qwen3_next": {
            "head_dim": 128, "linear_num_value_heads": 16, "linear_num_key_heads": 8, "linear_key_head_dim": 128,
            "linear_value_head_dim": 128, "num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 1024,
            "shared_expert_intermediate_size": 1024,
            "layer_types": _kinds(layers, *["linear_attention"] * 3, "full_attention"),
        },
        "t5": {
            "d_model": 2048, "d_kv": 128, "d_ff": 6144, "num_layers": layers, "num_decoder_layers": layers, "num_heads": 16,
            "decoder_start_token_id": 0,
        },
    }[name]  # fmt: skip


EAGER = "-eager"
NAMES = ("llama-eager", "gemma2-eager", "gpt_oss-eager", "diffllama", "falcon", "lfm2", "qwen3_next", "t5")


def make_model(name: str, layers: int, tokens: int) -> torch.nn.Module:
    """`name`: one of NAMES. Takes input_ids and labels of `tokens` tokens."""
    import transformers

    kind, is_eager = name.removesuffix(EAGER), name.endswith(EAGER)
    common = {
        "vocab_size": WORDS, "hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": layers,
        "num_attention_heads": 16, "num_key_value_heads": 4, "max_position_embeddings": tokens, "use_cache": False,
        "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    }  # fmt: skip
    config = transformers.CONFIG_MAPPING[kind](**{**common, **_settings(kind, layers)})
    made = transformers.AutoModelForSeq2SeqLM if kind == "t5" else transformers.AutoModelForCausalLM
    with torch.device("cuda"):
        model = made.from_config(config, dtype=torch.bfloat16, **({"attn_implementation": "eager"} if is_eager else {}))
    return model.train()  # type: ignore[no-any-return]
