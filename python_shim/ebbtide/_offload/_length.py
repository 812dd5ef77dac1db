"""How long a call of a layer is."""

from __future__ import annotations

from typing import NamedTuple

import torch


class Length(NamedTuple):
    """Of a layer's call."""

    rows: int = 0  # tokens of all its sequences together,
    tokens: int = 0  # and of each

    @staticmethod
    def of(x: torch.Tensor) -> Length:
        """`x`: the layer's input, of (batch x) tokens x width."""
        return Length(x.shape[:-1].numel(), x.shape[-2] if x.dim() > 1 else 1)

    @property
    def pairs(self) -> int:
        """Of tokens in one sequence: what matrices of scores grow with."""
        return self.rows * self.tokens
