"""The cutting of a sequence into pieces, and what happens to each piece's activations."""

from __future__ import annotations

import enum
import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch

from ._piece_size import even_part, part_of, spare_of_a_piece

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


class Form(NamedTuple):
    """How one part of a model runs an input, as far as it is known beforehand: a program of its own to the planner."""

    counts: tuple[int, ...] = ()  # what decides how many tensors there are; empty: nothing is known, or it is not cut
    pieces: tuple[int, ...] = ()  # tokens of all pieces but the last, and of the last: sizes follow from them

    @classmethod
    def of(cls, spans: Sequence[Span], *others: int, sequences: int = 1) -> Form:
        """`others` count beside the number of pieces. A span is one of `sequences` at once."""
        return cls((len(spans), *others), (sequences * spans[0].tokens, sequences * spans[-1].tokens))


def cut(tokens: int, piece: int) -> tuple[Span, ...]:
    """Spans of `piece` tokens that cover [0, tokens); the last may be shorter."""
    return tuple(Span(begin, min(begin + piece, tokens)) for begin in range(0, tokens, piece))


def choose_policies(spans: Sequence[Span], alpha: float, earlier: int = 0) -> tuple[Policy, ...]:
    """Swap a share `alpha` of the pieces (MEMO, arXiv 2407.12117, 4.1), recompute the others.

    Evenly among them: the copies of one hide behind the work of those before it. `earlier` pieces of other layers
    went before, so that a share that is no whole piece of one layer is one of several.
    """
    swapped = [math.ceil(alpha * (earlier + pieces) - 0.5) for pieces in range(len(spans) + 1)]
    return tuple(
        Policy.SWAP if now > before else Policy.RECOMPUTE
        for before, now in itertools.pairwise(swapped)
    )


def choose_piece(
    tokens: int,
    weight_bytes: int,
    whole_bytes_per_token: int,
    rest_bytes_per_token: int,
    spare_bytes: int = 0,
    fewest: int = 1,
) -> int:
    """Tokens of a piece of a layer, from bytes.

    What a piece needs while it runs may weigh as much as the layer's own weights, so that reading
    these is worth it, or as much as half a whole-length tensor, which then does not decide the peak. And
    fewer pieces are faster: a sixth of what the device has to spare beside all whole-length tensors may be
    taken, too, of which there is the less the longer the sequence. Such pieces are alike, and at least `fewest`.
    `whole_bytes_per_token` is a token of the layer's input, `rest_bytes_per_token` what a token of a
    piece holds at most, `spare_bytes` what the device has beside the model.
    """
    rest = max(rest_bytes_per_token, 1)
    least = _in_tiles(max(weight_bytes, whole_bytes_per_token * tokens // 2) // rest)
    spare = spare_of_a_piece(spare_bytes, whole_bytes_per_token * tokens)
    most = min(_in_tiles(spare // rest), part_of(tokens, fewest, _TILE))
    return min(tokens, max(least, even_part(tokens, most, _TILE)))


def _in_tiles(tokens: int) -> int:
    return max(_TILE, tokens // _TILE * _TILE)
