"""Whole-length tensors that are made of pieces."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ._attention_call import Parts
from ._layer_saving import dense_like, storage_of
from ._pieces import Span


class Rows:
    """A whole-length tensor that is filled piece by piece; with a single piece, that piece itself."""

    def __init__(self, dim: int, tokens: int) -> None:
        self._dim, self._tokens = dim, tokens
        self.tensor: torch.Tensor | None = None

    @staticmethod
    def put_all(rows: Sequence[Rows], span: Span, parts: Parts, is_ours: bool = True) -> None:
        """The same piece of several tensors. Views of one storage (a fused projection's q, k and v) are copied:
        each whole tensor has its own, by which views of it are known (Landing)."""
        storages = [storage_of(part) for part in parts]
        for row, part, storage in zip(rows, parts, storages, strict=True):
            is_alone = storages.count(storage) == 1 and part.untyped_storage().nbytes() == part.nbytes
            row.put(span, part, is_ours and is_alone)

    def put(self, span: Span, piece: torch.Tensor, is_ours: bool = True) -> None:
        """`is_ours`: nobody else needs the piece, so that whoever takes the whole may write to it."""
        if span.tokens == self._tokens and is_ours:
            self.tensor = piece.detach()
            return
        if self.tensor is None:
            self.tensor = dense_like(piece, self._dim, self._tokens)
        span.of(self.tensor, self._dim).copy_(piece)

    def take(self) -> torch.Tensor:
        assert self.tensor is not None
        tensor, self.tensor = self.tensor, None
        return tensor
