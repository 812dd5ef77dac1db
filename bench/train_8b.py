"""Trains a Llama with the shapes of the 8B model as anybody would write it: the program whose dry runs are measured.

    ebbtide fit --device h200 -- python bench/train_8b.py --seq {}
"""

from __future__ import annotations

import argparse

import torch
from transformers import LlamaConfig, LlamaForCausalLM


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seq", type=int, required=True, help="tokens in a sequence")
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--plain", action="store_true", help="without activation checkpointing")
    options = parser.parse_args()

    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"):
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=128256,
                hidden_size=4096,
                intermediate_size=14336,
                num_hidden_layers=options.layers,
                num_attention_heads=32,
                num_key_value_heads=8,
                max_position_embeddings=options.seq,
                use_cache=False,
            )
        )
    if not options.plain:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    for _ in range(options.steps):
        tokens = torch.randint(0, 128256, (1, options.seq), device="cuda")
        model(input_ids=tokens, labels=tokens).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


if __name__ == "__main__":
    main()
