"""MEMO's published figures beside what its formulas give with our device files. Nothing is run or fitted.

    python bench/memo.py                              7B, 8 x A800, tensor parallel 8, 1M tokens, 2 TB of host memory
    python bench/memo.py --device h200 --ranks 1 --tokens 262144 --host 128GiB

Time: python_shim/ebbtide/_transformer.py says what is assumed. Left out: head and loss, the embedding, the
optimizer's step, pipeline bubbles, memory of the device.
"""

from __future__ import annotations

import argparse
import sys

from ebbtide import _devices
from ebbtide._offload._choice import memo_alpha
from ebbtide._sizes import parse_size
from ebbtide._transformer import Decoder, crossover, layer_time, model_flops

# MEMO, section 5: 7B, GPT vocabulary.
_MODEL = Decoder(layers=32, hidden=4096, mlp=16384, vocabulary=50257)
_KEPT = 2  # last layers that are not swapped


def _mfu(seconds: float, tokens: int, device: _devices.Device, ranks: int) -> float:
    return model_flops(_MODEL, tokens) / seconds / ranks / device.peak_flops["bfloat16"]


def rows(device: _devices.Device, ranks: int, tokens: int, host: float) -> list[tuple[str, str, str]]:
    """What, ours, MEMO's."""
    time = layer_time(_MODEL, tokens, device, ranks)
    size = tokens / ranks
    link = device.out_rate(ranks) * time.forward
    alpha, limit = memo_alpha(
        _MODEL.always_bytes() * size,
        _MODEL.other_bytes() * size,
        _MODEL.layers - _KEPT,
        link,
        host / ranks,
    )
    once = time.forward + time.backward
    swapped = _MODEL.layers * once + (_MODEL.layers - _KEPT) * (1 - alpha) * time.recompute
    checkpointed = _MODEL.layers * (once + time.forward)
    hides = crossover(_MODEL, device, ranks) / 1024
    return [
        ("full swap hides from", f"{hides:.0f}K tokens", "192K (figure 1b)"),
        ("alpha", f"{alpha:.3f}, limit: {limit or 'none'}", "not published"),
        ("step", f"{swapped:.1f} s", "not published"),
        ("MFU", f"{100 * _mfu(swapped, tokens, device, ranks):.1f} %", "52.30 % (1M tokens)"),
        (
            "MFU, plain checkpointing",
            f"{100 * _mfu(checkpointed, tokens, device, ranks):.1f} %",
            "Megatron 23.91 %, DeepSpeed 23.26 % (v1, averages)",
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="a800-80g", help="a device file")
    parser.add_argument("--ranks", type=int, default=8, help="tensor parallel")
    parser.add_argument("--tokens", type=int, default=1 << 20)
    parser.add_argument("--host", default="2TB", help="host memory of all ranks together")
    options = parser.parse_args()
    host = parse_size(options.host)
    if host is None:
        sys.exit(f"--host {options.host}: not a size; write e.g. 2TB")
    try:
        device = _devices.load(options.device)
    except _devices.DeviceFileError as error:
        sys.exit(f"--device {options.device}: {error}")
    print(f"7B, {options.ranks} x {device.name}, {options.tokens} tokens\n")
    print("| | ours | MEMO |\n|---|---|---|")
    for row in rows(device, options.ranks, options.tokens, host):
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
