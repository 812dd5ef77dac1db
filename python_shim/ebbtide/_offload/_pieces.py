"""The cutting of a sequence into pieces, and what happens to each piece's activations."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import NamedTuple

import torch

_TILE = 64  # tokens: matrix products run best on multiples of it


class Policy(enum.Enum):
    """What becomes of what a piece's backward needs beside the layer's input and attention's output."""

    KEEP = "keep"  # stays on the device
    SWAP = "swap"  # goes to the store
    RECOMPUTE = "recompute"  # made again in backward


class Span(NamedTuple):
    """Tokens [begin, end) of the sequence."""

    begin: int
    end: int

    @property
    def tokens(self) -> int:
        return self.end - self.begin

    def of(self, tensor: torch.Tensor, dim: int) -> torch.Tensor:
        """These tokens of `tensor`: a view."""
        return tensor.narrow(dim, self.begin, self.end - self.begin)


def cut(tokens: int, piece: int) -> tuple[Span, ...]:
    """Spans of `piece` tokens that cover [0, tokens); the last may be shorter."""
    return tuple(Span(begin, min(begin + piece, tokens)) for begin in range(0, tokens, piece))


def choose_policies(spans: Sequence[Span], alpha: float) -> tuple[Policy, ...]:
    """Swap the first share `alpha` of the tokens (MEMO, arXiv 2407.12117, 4.1), recompute the others.

    A piece is swapped if the larger part of it lies within that share.
    """
    limit = alpha * spans[-1].end
    return tuple(
        Policy.SWAP if span.begin + span.tokens / 2 < limit else Policy.RECOMPUTE for span in spans
    )


def choose_piece(
    tokens: int, weight_bytes: int, whole_bytes_per_token: int, rest_bytes_per_token: int
) -> int:
    """Tokens of a piece of a layer, from bytes.

    What a piece needs while it runs may weigh as much as the layer's own weights, so that reading
    these is worth it, or as much as half a whole-length tensor, which then does not decide the peak.
    `whole_bytes_per_token` is a token of the layer's input, `rest_bytes_per_token` what a token of a
    piece holds at most.
    """
    room = max(weight_bytes, whole_bytes_per_token * tokens // 2)
    piece = room // max(rest_bytes_per_token, 1)
    return min(tokens, max(_TILE, piece // _TILE * _TILE))
