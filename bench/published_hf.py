"""Forward and backward of Hugging Face's classes, eager; prints one JSON object.

`llama`: Llama 3.2 1B in bfloat16, its own loss. `opt` (350M) and `bert` (base, with its head) in float16: the sum of all
logits, dropout, gradients given up first, as the scripts do with which attention was measured. Attention spelt out is OPT's
of 2024 there, which had one operator more than today's.

    ebbtide dryrun --device h100-80g -- python bench/published_hf.py --tokens 2048
"""

from __future__ import annotations

import argparse
import json

import torch
import transformers
from published_gpt import seconds_of
from transformers import masking_utils

_WARM, _STEPS = 2, 2


def attention_of_2024(
    module: torch.nn.Module, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None, **_options: object
) -> tuple[torch.Tensor, None]:
    """OPT's, whose queries come scaled: masked scores are cut off at the least number, softmax is in float32."""
    least = torch.tensor(torch.finfo(q.dtype).min, device=q.device)
    scores = q @ k.transpose(-1, -2)
    scores = torch.max(scores if mask is None else scores + mask, least)
    shares = torch.softmax(scores, -1, dtype=torch.float32).to(q.dtype)
    return (shares @ v).transpose(1, 2).contiguous(), None


def make_model(name: str, attention: str) -> torch.nn.Module:
    if name == "llama":
        config = transformers.LlamaConfig(
            hidden_size=2048, intermediate_size=8192, num_hidden_layers=16, num_attention_heads=32, num_key_value_heads=8,
            head_dim=64, vocab_size=128256, max_position_embeddings=131072, tie_word_embeddings=True,
        )  # fmt: skip
        kind = transformers.LlamaForCausalLM
    elif name == "opt":
        config = transformers.OPTConfig(
            hidden_size=1024, ffn_dim=4096, num_hidden_layers=24, num_attention_heads=16, word_embed_proj_dim=512,
            do_layer_norm_before=False,
        )  # fmt: skip
        kind = transformers.OPTForCausalLM
        if attention == "eager":
            attention = "of_2024"
            transformers.AttentionInterface.register(attention, attention_of_2024)
            masking_utils.AttentionMaskInterface.register(attention, masking_utils.eager_mask)
    else:
        config, kind = transformers.BertConfig(), transformers.BertForMaskedLM
    config._attn_implementation = attention
    return kind(config)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=("llama", "opt", "bert"), default="llama")
    parser.add_argument("--attention", choices=("sdpa", "eager"), default="sdpa")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=2048)
    options = parser.parse_args()
    torch.set_default_dtype(torch.bfloat16 if options.model == "llama" else torch.float16)
    with torch.device("cuda"):
        model = make_model(options.model, options.attention)
        ids = torch.ones(options.batch, options.tokens, dtype=torch.long)

    def step() -> None:
        if options.model == "llama":
            model(input_ids=ids, labels=ids).loss.backward()  # gradients are added up, as where it was measured
        else:
            model.zero_grad()
            model(input_ids=ids).logits.sum().backward()

    for _ in range(_WARM):
        step()
    seconds = seconds_of(step, _STEPS)
    held, live = torch.cuda.max_memory_reserved(), torch.cuda.max_memory_allocated()
    print(json.dumps({"seconds": seconds, "tokens": ids.numel(), "reserved": held, "live": live}))


if __name__ == "__main__":
    main()
