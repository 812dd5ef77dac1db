"""The sum of a loss over tokens, piece by piece: logits of all tokens never exist.

MsT (arXiv 2407.15892) computes head and loss over mini-sequences. Here gradients are made in the
backward pass only, where the upstream gradient is known (so nothing is wasted in evaluation, and
scaled losses are right), each token belongs to exactly one piece, the last of which may be shorter,
and parameters are inputs of the function: autograd accumulates into them once, and hooks of DDP,
FSDP and of optimizers in backward see one gradient.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from .._errors import EbbtideError
from ._gradient_sums import GradientSums
from ._layer_ambient import Autocast, RandomStates


@dataclasses.dataclass(frozen=True)
class PieceOfHead:
    """What turns a piece into its loss, and how large pieces are."""

    # (rows: n x hidden, stand-ins for the parameters) -> n x words
    logits: Callable[[torch.Tensor, Sequence[torch.Tensor]], torch.Tensor]
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # (n x words, n) -> scalar
    tokens: int

    def __call__(
        self, rows: torch.Tensor, labels: torch.Tensor, parameters: Sequence[torch.Tensor]
    ) -> torch.Tensor:
        return self.loss(self.logits(rows, parameters), labels)

    def bounds(self, rows: int) -> Iterator[tuple[int, int]]:
        """[begin, end) of each piece; together they are [0, rows)."""
        for begin in range(0, rows, self.tokens):
            yield begin, min(begin + self.tokens, rows)


def _stand_ins(parameters: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    # Hooks that users put on a parameter must see one gradient, not one a piece.
    return [parameter.detach().requires_grad_() for parameter in parameters]


class PiecewiseLoss(torch.autograd.Function):
    """apply(head, hidden: ... x width, labels: N, *parameters) -> the sum of the loss over N tokens.

    The gradient of `hidden` is a tensor of its own, and no view: the last layer's backward may then
    write over it.
    """

    @staticmethod
    def forward(
        ctx: Any,
        head: PieceOfHead,
        hidden: torch.Tensor,
        labels: torch.Tensor,
        *parameters: torch.Tensor,
    ) -> torch.Tensor:
        rows = hidden.reshape(-1, hidden.shape[-1])
        ctx.head, ctx.autocast, ctx.random = head, Autocast(rows.device), RandomStates(rows.device)
        ctx.drawn = ctx.random.now()
        ctx.save_for_backward(hidden, labels, *parameters)
        stand_ins = _stand_ins(parameters)
        total = None
        with ctx.autocast.again():
            for begin, end in head.bounds(len(rows)):
                loss = head(rows[begin:end], labels[begin:end], stand_ins)
                total = loss if total is None else total + loss
        return rows.new_zeros((), dtype=torch.float32) if total is None else total

    @staticmethod
    def backward(ctx: Any, upstream: torch.Tensor) -> Any:
        if torch.is_grad_enabled():
            raise EbbtideError(
                "create_graph=True: a loss computed piece by piece can be differentiated once; switch "
                "it off with ebbtide.offload(model, off=True)"
            )
        hidden, labels, *parameters = ctx.saved_tensors
        rows = hidden.reshape(-1, hidden.shape[-1])
        head, needs = ctx.head, ctx.needs_input_grad
        wanted = [index for index in range(len(parameters)) if needs[3 + index]]
        bounds = list(head.bounds(len(rows)))
        sums = GradientSums([parameters[index] for index in wanted], len(bounds))
        gradient = torch.empty(hidden.shape, dtype=hidden.dtype, device=hidden.device) if needs[1] else None
        stand_ins = _stand_ins(parameters)
        with ctx.random.undisturbed(), ctx.autocast.again():
            ctx.random.set(ctx.drawn)
            for begin, end in bounds:
                piece = rows[begin:end].detach().requires_grad_(needs[1])
                with torch.enable_grad():
                    loss = head(piece, labels[begin:end], stand_ins)
                asked = [stand_ins[index] for index in wanted] + ([piece] if needs[1] else [])
                found = list(torch.autograd.grad(loss, asked, upstream, allow_unused=True))
                del loss
                if gradient is not None:
                    gradient.view_as(rows)[begin:end] = found.pop()
                sums.add(found)
        weights: list[torch.Tensor | None] = [None] * len(parameters)
        for index, total in zip(wanted, sums.take(), strict=True):
            weights[index] = total
        return None, gradient, None, *weights
