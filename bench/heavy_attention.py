"""A step of a model with eager attention, without and with offload. To be run on a simulated device:

    ebbtide dryrun --device h200 -- python bench/heavy_attention.py gemma2 4096 auto

Prints one line: the last step's time, and the peak of live bytes since the third step began.
"""

from __future__ import annotations

import argparse
from typing import Any

import ebbtide
import torch
import transformers

LAYERS, WIDTH, WORDS, STEPS = 6, 2048, 2048, 30
CLASSES: dict[str, tuple[str, dict[str, Any]]] = {
    "gemma2": ("Gemma2Config", {"head_dim": 256, "sliding_window": 4096}),
    "gpt_oss": (
        "GptOssConfig",
        {"head_dim": 64, "sliding_window": 128, "num_local_experts": 4, "num_experts_per_tok": 2,
         "layer_types": ["sliding_attention", "full_attention"] * (LAYERS // 2)},
    ),
    "llama": ("LlamaConfig", {}),
}  # fmt: skip


def build(name: str, tokens: int) -> torch.nn.Module:
    kind, further = CLASSES[name]
    config = getattr(transformers, kind)(
        vocab_size=WORDS, hidden_size=WIDTH, intermediate_size=5632, num_hidden_layers=LAYERS,
        num_attention_heads=16, num_key_value_heads=4, max_position_embeddings=tokens, use_cache=False,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, **further,
    )  # fmt: skip
    with torch.device("cuda"):
        model = transformers.AutoModelForCausalLM.from_config(
            config, attn_implementation="eager", dtype=torch.bfloat16
        )
    return model.train()  # type: ignore[no-any-return]


def step_ms(model: torch.nn.Module, optimizer: torch.optim.Optimizer, tokens: int) -> float:
    ids = torch.randint(0, WORDS, (1, tokens), device="cuda")
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    begin.record()
    model(input_ids=ids, labels=ids).loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    end.record()
    torch.cuda.synchronize()
    return float(begin.elapsed_time(end))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", choices=CLASSES)
    parser.add_argument("tokens", type=int)
    parser.add_argument("way", choices=["plain", "checkpointing", "auto", "save", "recompute"])
    parser.add_argument("--mini-sequence", type=int)
    options = parser.parse_args()
    model = build(options.model, options.tokens)
    if options.way == "checkpointing":
        model.gradient_checkpointing_enable()
    elif options.way != "plain":
        ebbtide.offload(model, host="64GiB", attention=options.way, mini_sequence=options.mini_sequence)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    times = []
    for step in range(STEPS):
        if step == 2:
            torch.cuda.reset_peak_memory_stats()
        times.append(step_ms(model, optimizer, options.tokens))
    peak = torch.cuda.max_memory_allocated() / 2**30
    print(f"{options.model}, {options.tokens} tokens, {options.way}: {times[-1]:.1f} ms, {peak:.2f} GiB", flush=True)


if __name__ == "__main__":
    main()
