"""Gradients of parameters, summed over pieces."""

from __future__ import annotations

from collections.abc import Sequence

import torch

_REDUCED = (torch.float16, torch.bfloat16)


class GradientSums:
    """One sum per parameter. Reduced precisions are summed in float32 and rounded once, at the end.

    With a single piece its gradient is the result, bit for bit and without a float32 copy.
    """

    def __init__(self, parameters: Sequence[torch.Tensor], pieces: int) -> None:
        self._parameters = parameters
        self._pieces = pieces
        self._sums: list[torch.Tensor | None] = [None] * len(parameters)

    def add(self, gradients: Sequence[torch.Tensor | None]) -> None:
        """One piece's gradients, in the parameters' order; None where there is none."""
        for index, gradient in enumerate(gradients):
            if gradient is None:
                continue
            held = self._sums[index]
            if held is not None:
                held.add_(gradient)
            elif self._pieces > 1 and gradient.dtype in _REDUCED:
                self._sums[index] = gradient.float()
            else:
                self._sums[index] = gradient.clone() if self._pieces > 1 else gradient

    def take(self) -> list[torch.Tensor | None]:
        """The sums in the parameters' precisions. The float32 ones are given back one by one."""
        taken: list[torch.Tensor | None] = []
        for index, parameter in enumerate(self._parameters):
            held, self._sums[index] = self._sums[index], None
            taken.append(None if held is None else held.to(parameter.dtype))
        return taken
