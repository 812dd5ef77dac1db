"""How many tokens of the LM head run at once, from bytes."""

from __future__ import annotations

import torch

from ._options import host_memory

_DEVICE_SHARE = 64  # a piece may always take this part of the device
_TILE = 256  # tokens: matrix products run best on multiples of it
_LEAST = 8


def device_bytes(device: torch.device) -> int:
    """All memory of a device; of the host for host tensors."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return host_memory()


def head_bytes_per_token(words: int, itemsize: int) -> int:
    """Logits, their float32 form, log-softmax, its gradient, and the gradient of the logits."""
    return words * (2 * itemsize + 3 * 4)


def head_piece(
    words: int, hidden: int, itemsize: int, device: torch.device, wished: int | None
) -> int:
    """Tokens of a piece of the LM head, where `words` x `hidden` is the head's weight.

    What a piece holds stays below what the float32 sum of the head's gradient holds, which is
    there at the same time, or below a small share of the device: so pieces never decide the peak.
    A wished number of tokens is an upper bound.
    """
    budget = max(4 * words * hidden, device_bytes(device) // _DEVICE_SHARE)
    tokens = budget // head_bytes_per_token(words, itemsize)
    if wished is not None and wished <= tokens:
        return wished
    return max(_LEAST, tokens // _TILE * _TILE or tokens // _LEAST * _LEAST)
