"""Hugging Face's Llama 3.2 1B, forward and backward of one sequence, bfloat16, eager; prints one JSON object.

    ebbtide dryrun --device h100-80g -- python bench/published_hf.py --tokens 2048
"""

from __future__ import annotations

import argparse
import json

import torch
from published_gpt import seconds_of
from transformers import LlamaConfig, LlamaForCausalLM

_WARM, _STEPS = 2, 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=2048)
    options = parser.parse_args()
    config = LlamaConfig(
        hidden_size=2048, intermediate_size=8192, num_hidden_layers=16, num_attention_heads=32, num_key_value_heads=8,
        head_dim=64, vocab_size=128256, max_position_embeddings=131072, tie_word_embeddings=True,
    )  # fmt: skip
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"):
        model = LlamaForCausalLM(config)
        ids = torch.ones(options.batch, options.tokens, dtype=torch.long)

    def step() -> None:
        model(input_ids=ids, labels=ids).loss.backward()  # gradients are added up, as where it was measured

    for _ in range(_WARM):
        step()
    seconds = seconds_of(step, _STEPS)
    held, live = torch.cuda.max_memory_reserved(), torch.cuda.max_memory_allocated()
    print(json.dumps({"seconds": seconds, "tokens": ids.numel(), "reserved": held, "live": live}))


if __name__ == "__main__":
    main()
