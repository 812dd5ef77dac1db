"""The sum of a loss over tokens, piece by piece: logits of all tokens never exist.

MsT (arXiv 2407.15892) computes head and loss over mini-sequences. Here gradients are made in the
backward pass only, where the upstream gradient is known (so nothing is wasted in evaluation, and
scaled losses are right), each token belongs to exactly one piece, the last of which may be shorter,
and parameters are inputs of the function: autograd accumulates into them once, and hooks of DDP,
FSDP and of optimizers in backward see one gradient.

Backward begins where forward ends, so the last piece is not computed again: its graph waits, and its
backward comes first. It is no more than a piece needs while it runs.
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


def _are_hooks_there() -> bool:
    """Whether a program's own hooks would take what a graph saves here."""
    return torch._C._autograd._top_saved_tensors_default_hooks(True) is not None


class _Graph:
    """One piece's loss, with its graph. The graph is used up by its gradients."""

    def __init__(
        self,
        head: PieceOfHead,
        rows: torch.Tensor,
        labels: torch.Tensor,
        stand_ins: list[torch.Tensor],
        needs_rows: bool,
    ) -> None:
        self._rows, self._stand_ins, self._needs_rows = rows.detach().requires_grad_(needs_rows), stand_ins, needs_rows
        with torch.enable_grad():
            self.loss = head(self._rows, labels, stand_ins)

    def gradients(self, wanted: Sequence[int], upstream: torch.Tensor) -> list[torch.Tensor | None]:
        """Of the parameters with these indices, then of the rows, if they need one."""
        asked = [self._stand_ins[index] for index in wanted] + ([self._rows] if self._needs_rows else [])
        loss = self.__dict__.pop("loss")
        return list(torch.autograd.grad(loss, asked, upstream, allow_unused=True))


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
        ctx.last, ctx.drawn_last = None, ctx.drawn
        stand_ins = _stand_ins(parameters)
        bounds = list(head.bounds(len(rows)))
        keeps = any(ctx.needs_input_grad) and not _are_hooks_there()
        total = None
        with ctx.autocast.again():
            for begin, end in bounds:
                ctx.drawn_last = ctx.random.now()
                if keeps and (begin, end) == bounds[-1]:
                    ctx.last = _Graph(head, rows[begin:end], labels[begin:end], stand_ins, ctx.needs_input_grad[1])
                    loss = ctx.last.loss.detach()
                else:
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
        graph, ctx.last = ctx.last, None
        with ctx.random.undisturbed(), ctx.autocast.again():
            for number, (begin, end) in enumerate(bounds[-1:] + bounds[:-1]):
                if graph is None:
                    if number < 2:  # from the third on they follow each other
                        ctx.random.set((ctx.drawn_last, ctx.drawn)[number])
                    graph = _Graph(head, rows[begin:end], labels[begin:end], stand_ins, needs[1])
                found, graph = graph.gradients(wanted, upstream), None
                if gradient is not None:
                    gradient.view_as(rows)[begin:end] = found.pop()
                sums.add(found)
                del found
        weights: list[torch.Tensor | None] = [None] * len(parameters)
        for index, total in zip(wanted, sums.take(), strict=True):
            weights[index] = total
        return None, gradient, None, *weights
