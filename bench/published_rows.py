"""What others published of eager PyTorch training, and with which of our programs each is repeated.

Figures and settings only; every program was written anew. A row's `group` says whether a fault of the model was found
with it (`found`), or whether it was only looked at afterwards (`other`).
"""

from __future__ import annotations

import dataclasses

GIB = 1 << 30


@dataclasses.dataclass(frozen=True)
class Row:
    name: str
    source: str  # a key of SOURCES
    device: str  # of a device file, or a key of VARIANTS
    program: tuple[str, ...]
    group: str = "other"
    ranks: int = 0
    tokens_per_second: float = 0.0  # of one device; one of these two
    seconds: float = 0.0
    reserved_gib: float = 0.0  # 0: not published
    segments: bool = False  # expandable ones, as torchtitan sets


SOURCES = {
    "titan-h100": "pytorch/torchtitan, benchmarks/llama3_h100_202412_torchtitan.md, tables 1 and 3; program: commit 9dec370",
    "titan-a100": "pytorch/torchtitan, docs/performance.md as of commit 1ea476e9f, whose presets do not compile",
    "raschka": "rasbt/LLMs-from-scratch, ch05/10_llm-training-speed/README.md, steps 0, 2, 3, 5, 6, 7",
    "build-nanogpt": "karpathy/build-nanogpt, chapters of the lecture: 1000, 333 and 300 ms; program: up to commit 177e4cd",
    "nanogpt": "karpathy/nanoGPT, README.md as of commit 5a725d90: ~250 ms without torch.compile",
    "llm.c": "karpathy/llm.c, README.md before commit f7fb3e6, a PCIe A100 of 40 GB: 104 ms forward",
    "foundry-h100": "mosaicml/llm-foundry, scripts/train/benchmarking/README.md as of commit 5e85bd62d, settings in sweep.py",
    "foundry-a100": "the same file, on 8 A100s with eight 200 Gb/s adapters; settings in sweep.sh as of commit b2a43a147",
    "resnet": "NVIDIA/DeepLearningExamples, PyTorch/Classification/ConvNets/resnet50v1.5/README.md, one A100: 938 and 2470 images/s; settings in configs.yml",
    "thunder": "Lightning-AI/lightning-thunder, issue 1506: 53.6 ms +- 8.8, transformers' class",
}

# Devices without a file: one with a file, and what differs.
VARIANTS = {
    # Of torchtitan's report: 96 GB of HBM2e at 2.4 TB/s, 500 W. What 500 W leave of the peaks is not published.
    "h100-96g": ("h100-80g", {"name": "NVIDIA H100 96GB HBM2e", "memory_bytes": int(95.04 * GIB), "memory_bandwidth": 2.4e12}),
}

_OWN = ("--attention", "separate", "--norm", "own", "--activation", "own")
_BOOK = ("published_gpt.py", "--dropout", "0.1", "--frees-logits", "--evaluates")
_BFLOAT = ("--dtype", "bfloat16", "--optimizer", "fused")
_LECTURE = ("published_gpt.py", "--tied", "--qkv-bias", "--batch", "16")
_NANO = ("published_gpt.py", "--qkv-bias", "--tf32", "--autocast", "--zeroes-late", "--waits", "--dropout", "0.1")
_LLM_C = ("published_gpt.py", "--tied", "--qkv-bias", "--batch", "4", "--activation", "own", "--optimizer", "adam",
          "--zeroes-late", "--waits")  # fmt: skip


def _book(name: str, program: tuple[str, ...], speed: float, held: float) -> Row:
    return Row(f"GPT-2 124M, 8 x 1024: {name}", "raschka", "a100-40g", (*_BOOK, *program), "found",
               tokens_per_second=speed, reserved_gib=held)  # fmt: skip


def _titan(model: str, batch: int, kept: str, speed: float, tokens: int = 8192) -> Row:
    program = ("published_llama.py", "--model", model, "--batch", str(batch), "--tokens", str(tokens))
    of = {"8B": "3 8B", "70B": "3 70B", "13B": "2 13B", "70B-2": "2 70B"}[model]
    name = f"Llama {of}, {batch} x {tokens}, checkpointing {kept}, FSDP2 over 64"
    return Row(name, "titan-a100", "a100-80g", (*program, "--checkpointing", kept, "--norm", "fused"),
               ranks=64, tokens_per_second=speed, segments=True)  # fmt: skip


def _h100(ranks: int, speed: float, held: float) -> Row:
    program = ("published_llama.py", "--model", "8B", "--batch", "2", "--checkpointing", "op")
    return Row(f"Llama 3.1 8B, 2 x 8192, checkpointing op, FSDP2 over {ranks}", "titan-h100", "h100-96g", program,
               ranks=ranks, tokens_per_second=speed, reserved_gib=held, segments=True)  # fmt: skip


def _foundry(source: str, ranks: int, model: str, tokens: int, batch: int, micro: int, kept: str, speed: float) -> Row:
    program = ("published_mpt.py", "--model", model, "--batch", str(batch), "--tokens", str(tokens), "--microbatches", str(micro))
    options = {"all": (), "checkpoints": ("--checkpointing",), "parameters": ("--keeps-parameters", "--packs"),
               "packed": ("--packs",), "packed checkpoints": ("--checkpointing", "--packs")}[kept]  # fmt: skip
    name = f"MPT {model}, {micro} x {batch} x {tokens}, {'checkpointing, ' * ('checkpoints' in kept)}sharded over {ranks}"
    device = {"foundry-h100": "h100-80g", "foundry-a100": "a100-80g"}[source]
    return Row(name, source, device, (*program, *options), ranks=ranks, tokens_per_second=speed)


ROWS = (
    _book("spelt out, float32", _OWN, 12525, 26.2617),
    _book("TF32", (*_OWN, "--tf32"), 27648, 26.2422),
    _book("fused AdamW", (*_OWN, "--tf32", "--optimizer", "fused"), 28399, 26.2422),
    _book("bfloat16", (*_OWN, *_BFLOAT), 45486, 13.7871),
    _book("torch's norm and GELU", ("--attention", "separate", *_BFLOAT), 55256, 11.5645),
    _book("FlashAttention", ("--attention", "sdpa", *_BFLOAT), 91901, 5.9004),
    Row("GPT-2 124M, 4 x 1024: float32 forward", "llm.c", "a100-40g", (*_LLM_C, "--forward-only"), "found", seconds=0.104),
    Row("GPT-2 124M, 16 x 1024: float32", "build-nanogpt", "a100-80g", _LECTURE, seconds=1.0),
    Row("the same: TF32", "build-nanogpt", "a100-80g", (*_LECTURE, "--tf32"), seconds=0.333),
    Row("the same: bfloat16 autocast", "build-nanogpt", "a100-80g", (*_LECTURE, "--tf32", "--autocast"), "found", seconds=0.3),
    Row("GPT-2 124M, 8 x 1024: bfloat16 autocast", "nanogpt", "a100-40g", _NANO, "found", seconds=0.25),
    Row("Llama 3.2 1B, 1 x 2048: forward and backward", "thunder", "h100-80g", ("published_hf.py",), seconds=0.0536),
    Row("ResNet-50, 256 images: TF32", "resnet", "a100-80g", ("published_resnet.py",), seconds=256 / 938),
    Row("the same: mixed precision, channels last", "resnet", "a100-80g", ("published_resnet.py", "--mixed"), seconds=256 / 2470),
    _h100(8, 5762, 82.4),
    _h100(128, 5605, 67.0),
    _titan("8B", 1, "op", 2973),
    _titan("8B", 1, "layer", 2904),
    _titan("70B", 1, "full", 331),
    _titan("13B", 2, "none", 2162, 4096),
    _titan("13B", 2, "layer", 1914, 4096),
    _titan("13B", 2, "op", 1904, 4096),
    _titan("70B-2", 1, "op", 355, 4096),
    _titan("70B-2", 2, "full", 353, 4096),
    # Chosen before any was run: of the H100s all models at the fewest GPUs of the large table; of the A100s 8192 tokens for
    # each model from 1b to 13b, and 2048 and 32768 for 7b.
    _foundry("foundry-h100", 128, "1b", 2048, 12, 1, "parameters", 44123),
    _foundry("foundry-h100", 128, "3b", 2048, 8, 1, "parameters", 23422),
    _foundry("foundry-h100", 128, "7b", 2048, 6, 1, "packed", 10475),
    _foundry("foundry-h100", 128, "13b", 2048, 16, 1, "checkpoints", 5080),
    _foundry("foundry-h100", 128, "30b", 2048, 8, 1, "checkpoints", 2199),
    _foundry("foundry-h100", 128, "70b", 2048, 8, 1, "packed checkpoints", 1058),
    _foundry("foundry-a100", 8, "1b", 8192, 3, 4, "all", 13814),
    _foundry("foundry-a100", 8, "3b", 8192, 3, 6, "all", 7695),
    _foundry("foundry-a100", 8, "7b", 8192, 8, 2, "checkpoints", 3206),
    _foundry("foundry-a100", 8, "13b", 8192, 5, 3, "checkpoints", 1795),
    _foundry("foundry-a100", 8, "7b", 2048, 6, 2, "all", 4641),
    _foundry("foundry-a100", 8, "7b", 32768, 2, 2, "checkpoints", 1672),
)
