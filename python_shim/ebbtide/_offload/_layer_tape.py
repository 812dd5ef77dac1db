"""One recorded run of a part of a layer, and its backward.

Note [Edges, not tensors]
A graph that waits for backward must not hold its own inputs and outputs: a leaf's AccumulateGrad
node holds the leaf. So inputs are outputs of a node that does nothing, and both ends are kept as
edges of the graph. torch.autograd.grad takes those.

Note [As in training]
What runs again in backward runs without a graph in forward. But kernels may be chosen by whether a graph is
made (torch's attention: not all that can run forward can run backward), and another kernel has other bits.
So forward makes a graph, too, that saves nothing and is dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.autograd.graph import GradientEdge, get_gradient_edge, saved_tensors_hooks

_ANCHOR = torch.empty(0, requires_grad=True)


class _Source(torch.autograd.Function):
    """Gives tensors a graph to begin at. Its backward never runs: gradients are captured here."""

    @staticmethod
    def forward(ctx: Any, anchor: torch.Tensor, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(tensor.detach() for tensor in tensors)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[None, ...]:
        return (None,) * (len(gradients) + 1)


class Tape:
    """The graph from some inputs to some outputs."""

    __slots__ = ("_inputs", "_outputs")

    def __init__(
        self, inputs: Sequence[torch.Tensor], outputs: Sequence[torch.Tensor]
    ) -> None:
        self._inputs: tuple[GradientEdge, ...] = tuple(map(get_gradient_edge, inputs))
        self._outputs: tuple[GradientEdge | None, ...] = tuple(
            get_gradient_edge(output) if output.requires_grad else None for output in outputs
        )

    @staticmethod
    def sources(*inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The same tensors, for a graph to begin at. With gradients on."""
        return _Source.apply(_ANCHOR, *inputs)  # type: ignore[no-any-return]

    @staticmethod
    def record(
        function: Callable[..., tuple[torch.Tensor, ...]], *inputs: torch.Tensor
    ) -> tuple[Tape, tuple[torch.Tensor, ...]]:
        """Run `function` with gradients on. Its outputs come without their graph: the tape has it."""
        with torch.enable_grad():
            sources = Tape.sources(*inputs)
            outputs = function(*sources)
            tape = Tape(sources, outputs)
        return tape, tuple(output.detach() for output in outputs)

    @property
    def roots(self) -> list[Any]:
        """The nodes that make the outputs."""
        return [edge.node for edge in self._outputs if edge is not None]

    def shares_nodes(self, other: Tape) -> bool:
        """Whether both graphs have a node in common that saves something: the first one's backward uses it up."""
        return not self._nodes().isdisjoint(other._nodes())

    def _nodes(self) -> set[Any]:
        """Of the graph from outputs to inputs; without the sources and the leaves, which save nothing."""
        found: set[Any] = set()
        ends = {edge.node for edge in self._inputs}
        waiting = self.roots
        while waiting:
            node = waiting.pop()
            if node in found or node in ends or not node.next_functions:
                continue
            found.add(node)
            waiting += [following for following, _ in node.next_functions if following is not None]
        return found

    def gradients(
        self, grad_outputs: Sequence[torch.Tensor | None], parameters: Sequence[torch.Tensor]
    ) -> tuple[list[torch.Tensor | None], list[torch.Tensor | None]]:
        """Gradients of the inputs and of `parameters` (leaves). The graph is used up."""
        pairs = [
            (edge, gradient)
            for edge, gradient in zip(self._outputs, grad_outputs, strict=True)
            if edge is not None and gradient is not None
        ]
        count = len(self._inputs)
        if not pairs:
            return [None] * count, [None] * len(parameters)
        edges, gradients = zip(*pairs, strict=True)
        found = torch.autograd.grad(
            edges, (*self._inputs, *parameters), gradients, allow_unused=True
        )
        self._inputs = self._outputs = ()
        return list(found[:count]), list(found[count:])


def run_as_in_training(
    function: Callable[..., tuple[torch.Tensor, ...]], *inputs: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    """What `Tape.record` gives, without a tape and what it would hold. See Note [As in training]."""
    with saved_tensors_hooks(_forget, _forget):
        return Tape.record(function, *inputs)[1]


def _forget(_: torch.Tensor) -> None:
    pass
