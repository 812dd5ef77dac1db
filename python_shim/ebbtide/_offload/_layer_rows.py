"""Whole-length tensors that are made of pieces."""

from __future__ import annotations

import torch

from ._layer_saving import dense_like
from ._pieces import Span


class Rows:
    """A whole-length tensor that is filled piece by piece; with a single piece, that piece itself, if it has a storage
    of its own. Of a fused projection's views each becomes a tensor: views that attention saves of them are told apart
    by their storages."""

    def __init__(self, dim: int, tokens: int) -> None:
        self._dim, self._tokens = dim, tokens
        self.tensor: torch.Tensor | None = None

    def put(self, span: Span, piece: torch.Tensor, is_ours: bool = True) -> None:
        """`is_ours`: nobody else needs the piece, so that whoever takes the whole may write to it."""
        if span.tokens == self._tokens and is_ours and piece.untyped_storage().nbytes() == piece.nbytes:
            self.tensor = piece.detach()
            return
        if self.tensor is None:
            self.tensor = dense_like(piece, self._dim, self._tokens)
        span.of(self.tensor, self._dim).copy_(piece)

    def take(self) -> torch.Tensor:
        assert self.tensor is not None
        tensor, self.tensor = self.tensor, None
        return tensor
