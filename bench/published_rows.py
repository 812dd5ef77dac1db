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
    cudnn: bool = False  # torch of 2026, which takes cuDNN's attention on H100s


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
    "mojo": "gabrieldemarmiesse/torch-mojo-backend, pull requests 464 and 467, what they call stock CUDA torch (2.11) and torch-cuda (of 231.0 and 228.3 ms on one device the latter, by its ratio); docs/distributed.md (32 H100s); programs: bench_nanogpt_train.py, profile_gpt2xl_ops.py, nanogpt_ddp.py",
    "fms": "foundation-model-stack/fms-fsdp, README.md as of commit 0d319983 (the first three) and as it was published in March 2024; Llama 2, 4096 tokens; 400 and 800 Gb/s a node",
    "opt": "huggingface/transformers, docs/source/en/model_doc/opt.md as of v4.46: an L40S, PyTorch 2.4.0; program: gist fxmarty/7e75cc3942d6974e4849093ebea0a331",
    "bert": "huggingface/transformers, docs/source/en/model_doc/bert.md as of v4.46: an A100 of 80 GB, PyTorch 2.2.0; gist hackyon/2bfcfb59666fab23655f6e62bc0752ba",
    "thunder": "Lightning-AI/lightning-thunder, issue 1506: 53.6 ms +- 8.8, transformers' class",
}

# Devices without a file: one with a file, and what differs.
VARIANTS: dict[str, tuple[str, dict[str, object]]] = {
    # 114 multiprocessors at 1410 MHz, as their clock was locked: 4096 operations in bfloat16 for each and cycle.
    "h100-pcie-1410": ("h100-80g", {
        "name": "NVIDIA H100 PCIe", "multiprocessors": 114, "clock_khz": 1410000, "memory_bandwidth": 2.039e12,
        "peak_flops": {"float64": 41.1e12, "float32": 41.1e12, "tfloat32": 329.2e12, "float16": 658.4e12, "bfloat16": 658.4e12, "float8": 1316.8e12},
    }),
    "a100-80g-400": ("a100-80g", {"node": {"network": 6.25e9}}),  # 400 Gb/s for a node's eight devices
    "h100-80g-800": ("h100-80g", {"node": {"network": 12.5e9}}),
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
_XL, _SMALL = ("--size", "xl", "--batch", "8", "--bias"), ("--size", "124M", "--batch")


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


def _nano(name: str, device: str, program: tuple[str, ...], ranks: int = 0, **published: float) -> Row:
    return Row(name, "mojo", device, ("published_nanogpt.py", *program), ranks=ranks, cudnn=True, **published)


def _fms(device: str, ranks: int, model: str, batch: int, way: str, speed: float) -> Row:
    program = ("published_llama.py", "--model", model, "--batch", str(batch), "--tokens", "4096", "--narrow")
    options = {"HSDP": ("--shards", "8"), "FSDP": (), "checkpointing, FSDP": ("--checkpointing", "full")}[way]
    name = f"Llama 2 {model.partition('-')[0]}, {batch} x 4096, {way} over {ranks}"
    return Row(name, "fms", device, (*program, *options), ranks=ranks, tokens_per_second=speed)


def _hf(model: str, device: str, batch: int, tokens: int, eager: float, sdpa: float) -> tuple[Row, ...]:
    program = ("published_hf.py", "--model", model, "--batch", str(batch), "--tokens", str(tokens), "--attention")
    name = f"{ {'opt': 'OPT 350M', 'bert': 'BERT base'}[model] }, {batch} x {tokens}: forward and backward, attention "
    return tuple(
        Row(name + way, model, device, (*program, of), seconds=seconds)
        for way, of, seconds in (("spelt out", "eager", eager), ("of torch", "sdpa", sdpa))
    )


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
    # Held out: chosen, and written down, before any was run, and nothing was taken from them. *mojo*: all that is published of
    # stock torch on NVIDIA's. *fms*: all but selective checkpointing, of which it is not said what was kept. *opt* and *bert*:
    # from 4096 tokens on, without those that are the line above again.
    _nano("GPT-2 XL, 8 x 1024: bfloat16 autocast", "h100-80g", _XL, seconds=0.2283),
    _nano("the same, DDP over 16", "h100-80g", _XL, 16, tokens_per_second=497e3 / 16),
    _nano("GPT-2 XL, 16 x 1024: forward and backward", "h100-pcie-1410", (*_XL[:3], "16", "--bias", "--no-update"), seconds=0.599),
    _nano("GPT-2 124M, 48 x 1024: bfloat16 autocast, DDP over 16", "h100-80g", (*_SMALL, "48"), 16, tokens_per_second=5727e3 / 16),
    _nano("the same, 32 x 1024", "h100-80g", (*_SMALL, "32"), 16, tokens_per_second=5623e3 / 16),
    _nano("the same, 32 x 1024, over 32", "h100-80g", (*_SMALL, "32"), 32, tokens_per_second=11.16e6 / 32),
    _nano("the same, 12 x 1024, over 16", "h100-80g", (*_SMALL, "12"), 16, tokens_per_second=4842e3 / 16),
    _fms("a100-80g-400", 128, "13B", 1, "HSDP", 1700),
    _fms("a100-80g-400", 128, "34B", 8, "checkpointing, FSDP", 772),
    _fms("a100-80g-400", 128, "70B-2", 6, "checkpointing, FSDP", 380),
    _fms("a100-80g-400", 128, "7B", 2, "HSDP", 3650),
    _fms("a100-80g-400", 128, "34B", 2, "checkpointing, FSDP", 700),
    _fms("a100-80g-400", 128, "70B-2", 2, "checkpointing, FSDP", 370),
    _fms("h100-80g-800", 96, "7B", 2, "HSDP", 7500),
    _fms("h100-80g-800", 96, "34B", 2, "checkpointing, FSDP", 1550),
    _fms("h100-80g-800", 96, "70B-2", 2, "checkpointing, FSDP", 800),
    *_hf("opt", "l40s", 2, 2048, 0.464, 0.067),
    *_hf("opt", "l40s", 4, 1024, 0.262, 0.062),
    *_hf("opt", "l40s", 8, 512, 0.153, 0.060),
    *_hf("opt", "l40s", 8, 1024, 0.526, 0.122),
    *_hf("bert", "a100-80g", 8, 512, 0.035, 0.025),
    *_hf("bert", "a100-80g", 16, 256, 0.030, 0.024),
    *_hf("bert", "a100-80g", 16, 512, 0.064, 0.044),
)
