"""How much of a device a piece may take, and how many tokens of the LM head run at once: from bytes."""

from __future__ import annotations

import torch

from ._options import host_memory

_DEVICE_SHARE = 64  # a piece may always take this part of the device
_WHOLE_TENSORS = 24  # as large as a layer's input, at the peak: in its backward, and what last layers keep
_SPARE_PART = 6  # of what is left beside them a layer's piece may take one of so many parts
_SPARE_PART_OF_LOGITS = 8  # and one of the head: fewer of these gain little
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


def spare_of_a_piece(spare_bytes: int, whole_bytes: int, part: int = _SPARE_PART) -> int:
    """What a piece may take of `spare_bytes`, where a whole-length tensor weighs `whole_bytes`. May be negative."""
    return (spare_bytes - _WHOLE_TENSORS * whole_bytes) // part


def part_of(tokens: int, parts: int, tile: int) -> int:
    """One of so many parts, rounded up to tiles."""
    return -(-tokens // parts // tile) * tile


def even_part(tokens: int, most: int, tile: int) -> int:
    """Of parts that are alike and have at most so many tokens, or tiles.

    Their number is a power of two: steps whose numbers of pieces are the same are planned as one, and lengths that vary
    bring few numbers this way.
    """
    parts = -(-tokens // most)
    return part_of(tokens, 1 << (parts - 1).bit_length(), tile)


def head_piece(
    words: int,
    hidden: int,
    itemsize: int,
    device: torch.device,
    wished: int | None,
    tokens: int = 0,
    spare_bytes: int = 0,
) -> int:
    """Tokens of a piece of the LM head, where `words` x `hidden` is the head's weight, of `tokens` in all.

    What a piece holds stays below what the float32 sum of the head's gradient holds, which is
    there at the same time, or below a small share of the device: so pieces never decide the peak. Or below its part of
    what the device has to spare beside the model, `spare_bytes`: then pieces are alike.
    A wished number of tokens is an upper bound.
    """
    per_token = head_bytes_per_token(words, itemsize)
    least = _in_tiles(max(4 * words * hidden, device_bytes(device) // _DEVICE_SHARE) // per_token)
    spare = spare_of_a_piece(spare_bytes, tokens * hidden * itemsize, _SPARE_PART_OF_LOGITS)
    most = _in_tiles(spare // per_token)
    if most > least:
        most = max(least, even_part(tokens, most, _TILE))
    else:
        most = least
    return most if wished is None else min(most, wished)


def _in_tiles(tokens: int) -> int:
    return max(_LEAST, tokens // _TILE * _TILE or tokens // _LEAST * _LEAST)
