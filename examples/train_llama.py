"""Trains a byte-level Llama on the Python standard library's own source files.

A plain program: the model is Hugging Face's class as it comes, the optimizer torch's AdamW, and
nothing here knows of Ebbtide. One document a step, cut to --length; documents vary in length.

    python examples/train_llama.py
    EBBTIDE=1 python examples/train_llama.py
"""

from __future__ import annotations

import argparse
import json
import pathlib
import random
import statistics
import sys
import sysconfig
import time

import torch
from transformers import LlamaConfig, LlamaForCausalLM

VOCABULARY = 256  # bytes
# small learns something in a minute on two cores; 8b-width is one quarter of an 8B model, for a GPU.
SIZES = {
    "small": {"hidden_size": 192, "intermediate_size": 512, "num_hidden_layers": 4,
              "num_attention_heads": 6, "num_key_value_heads": 2},
    "8b-width": {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 8,
                 "num_attention_heads": 32, "num_key_value_heads": 8},
}


def documents(count: int, longest: int, seed: int) -> list[bytes]:
    """The same documents in the same order for the same seed and Python version."""
    library = pathlib.Path(sysconfig.get_path("stdlib"))
    files = sorted(library.glob("*.py")) + sorted(library.glob("[a-z]*/*.py"))
    files = [file for file in files if "site-packages" not in file.parts]
    random.Random(seed).shuffle(files)
    texts = (file.read_bytes()[:longest] for file in files)
    found = [text for text in texts if len(text) >= 64]
    if not found:
        raise SystemExit(f"no Python source files in {library}: this Python came without them")
    return [found[number % len(found)] for number in range(count)]


def make_model(size: str, longest: int, device: torch.device, simulated: bool) -> torch.nn.Module:
    config = LlamaConfig(
        vocab_size=VOCABULARY, max_position_embeddings=longest, use_cache=False, **SIZES[size]
    )
    torch.set_default_dtype(torch.bfloat16 if size == "8b-width" else torch.float32)
    if simulated:
        from transformers.initialization import no_init_weights

        with torch.device(device), no_init_weights():  # values mean nothing there
            return LlamaForCausalLM(config)
    with torch.device(device):
        return LlamaForCausalLM(config)


def train(options: argparse.Namespace) -> dict:
    torch.manual_seed(options.seed)
    device = torch.device(options.device)
    model = make_model(options.size, options.length, device, options.simulated)
    if options.checkpointing:
        new_name = getattr(model, "activation_checkpointing_enable", None)
        (new_name or model.gradient_checkpointing_enable)({"use_reentrant": False})
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses, seconds = [], []
    texts = documents(options.steps, options.length, options.seed)
    for step, text in enumerate(texts, 1):
        start = time.perf_counter()
        tokens = torch.tensor(list(text), device=device).unsqueeze(0)
        loss = model(input_ids=tokens, labels=tokens).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        # Reading the loss waits for the device; on a simulated one there is nothing to read.
        losses.append(None if options.simulated else loss.item())
        seconds.append(time.perf_counter() - start)
        if step == 1 or step % options.every == 0:
            shown = "" if options.simulated else f"  loss {losses[-1]:.4f}"
            print(f"step {step:4}/{options.steps}  {len(text):6} bytes{shown}", flush=True)
    return {
        "losses": [None if loss is None else loss.hex() for loss in losses],
        "last_loss": losses[-1],
        "step_ms": 1e3 * statistics.median(seconds[len(seconds) // 2 :]),
    }


def memory(device: torch.device) -> dict:
    """What the run needed, as far as this device can tell."""
    if device.type == "cuda":
        stats = torch.cuda.memory_stats()
        return {
            "peak_live_bytes": stats["allocated_bytes.all.peak"],
            "peak_reserved_bytes": stats["reserved_bytes.all.peak"],
            "retries": stats["num_alloc_retries"],
        }
    import resource

    return {"peak_resident_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--length", type=int, default=4096, help="documents are cut to this")
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--simulated", action="store_true", help="the device computes nothing")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--every", type=int, default=10, help="print a line every so many steps")
    parser.add_argument("--json", type=pathlib.Path, help="write the run's numbers there")
    options = parser.parse_args()
    result = train(options) | memory(torch.device(options.device))
    if "ebbtide" in sys.modules:
        import dataclasses

        import ebbtide

        if ebbtide.is_active():
            index = 0 if options.device.startswith("cuda") else "cpu"
            result["ebbtide"] = dataclasses.asdict(ebbtide.stats(index))
    if options.json:
        options.json.write_text(json.dumps(result))


if __name__ == "__main__":
    main()
