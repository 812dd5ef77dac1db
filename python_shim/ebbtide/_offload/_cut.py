"""The three parts of a layer: before attention, attention, after attention.

before: row-wise, from the layer's input to what attention takes (q, k, v). attention: over the whole
length. after: row-wise, from the layer's input and attention's output to the layer's output.

Note [Cutting an unmodified layer]
A layer of transformers is cut by running its own forward on a piece of the tokens with an attention
that either takes q, k, v and ends the run (before), or answers with the piece of the output that is
there already (after). The after part computes q, k, v once more for nothing: no gradient flows
there, so the sum of both parts' gradients is exact. A single piece waits for no other one, so its
attention runs inside of the layer's run, which is then the only one (through).

Any other module may offer the parts itself, as methods; tokens are dimension 1 of every tensor:
    before_attention(x, *args, **kwargs) -> tuple of tensors
    attention(*parts, **kwargs) -> out        with the keyword arguments of the layer's call
    after_attention(x, out, *args, **kwargs) -> y
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import torch

from .._errors import EbbtideError, one_line
from ._attention_call import AttentionCall, Attend, Parts
from ._attention_interface import intercepted
from ._layer_arguments import CannotCut, PieceCall, map_tensors, tensors_in

Attention = Callable[[Parts, Attend], torch.Tensor]

_PROTOCOL = ("before_attention", "attention", "after_attention")


class Cut(Protocol):
    """One layer's three parts. `parts_dim` and `out_dim` are the dimensions of the tokens."""

    parts_dim: int
    out_dim: int

    def before(self, call: PieceCall) -> tuple[Parts, Attend]: ...

    def after(
        self, call: PieceCall, out: torch.Tensor, at_attention: Callable[[], None]
    ) -> tuple[torch.Tensor, Parts | None]:
        """The output and, where the run came by them, the parts. `at_attention` is called between both."""

    def through(self, call: PieceCall, attention: Attention) -> torch.Tensor:
        """The output, by one run of all three parts. `attention` answers with attention's output."""


def offers_parts(module: torch.nn.Module) -> bool:
    return all(callable(getattr(module, name, None)) for name in _PROTOCOL)


class ModuleCut:
    """A module that offers its parts itself."""

    parts_dim = out_dim = 1

    def __init__(self, layer: Any) -> None:
        self._layer = layer

    def before(self, call: PieceCall) -> tuple[Parts, Attend]:
        parts = tuple(self._layer.before_attention(*call.args, **call.kwargs))
        kwargs = map_tensors(call.origin, call.kwargs)
        return parts, lambda *whole: self._layer.attention(*whole, **kwargs)

    def after(
        self, call: PieceCall, out: torch.Tensor, at_attention: Callable[[], None]
    ) -> tuple[torch.Tensor, Parts | None]:
        at_attention()
        x, *rest = call.args
        return self._layer.after_attention(x, out, *rest, **call.kwargs), None

    def through(self, call: PieceCall, attention: Attention) -> torch.Tensor:
        y, _ = self.after(call, attention(*self.before(call)), lambda: None)
        return y


_NO_ATTENTION = "it calls no attention that transformers knows of"
_ATTENTION_TWICE = "it calls attention more than once"


class _AtAttention(BaseException):
    """Ends a run at its attention. No Exception: a model's own handlers must not see it."""


@contextlib.contextmanager
def _before_attention(met: Sequence[object] = ()) -> Iterator[None]:
    """What fails in the block before attention is `met` cannot be cut: an attention of its own, most often, that
    wants all tokens. From then on an error is the model's."""
    try:
        yield
    except (CannotCut, EbbtideError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        if met:
            raise
        raise CannotCut(
            "a piece of the tokens fails before it asks transformers for its attention: " + one_line(error)
        ) from error


class AttentionCut:
    """A layer of transformers, cut where it asks for its attention function."""

    parts_dim = 2  # batch x heads x tokens x width
    out_dim = 1  # batch x tokens x heads x width

    def __init__(self, forward: Callable[..., Any], owned: Callable[[torch.Tensor], bool]) -> None:
        """`forward` is the layer's own; `owned` tells its parameters and buffers."""
        self._forward = forward
        self._owned = owned

    def before(self, call: PieceCall) -> tuple[Parts, Attend]:
        found: list[tuple[Parts, Attend]] = []

        def take(function: Any, module: Any, *args: Any, **kwargs: Any) -> None:
            found.append((args[:3], self._attend(call, function, module, args[3:], kwargs)))
            raise _AtAttention

        try:
            with _before_attention(), intercepted(take):
                self._forward(*call.args, **call.kwargs)
        except _AtAttention:
            return self._checked(call, found[0])
        raise CannotCut(_NO_ATTENTION)

    def after(
        self, call: PieceCall, out: torch.Tensor, at_attention: Callable[[], None]
    ) -> tuple[torch.Tensor, Parts | None]:
        met: list[Parts] = []

        def answer(function: Any, module: Any, *args: Any, **kwargs: Any) -> Any:
            if met:
                raise CannotCut(_ATTENTION_TWICE)
            met.append(args[:3])
            at_attention()
            return out, None

        with intercepted(answer):
            y = self._forward(*call.args, **call.kwargs)
        return self._rows(call, y), met[0] if met else None

    def through(self, call: PieceCall, attention: Attention) -> torch.Tensor:
        met: list[object] = []

        def answer(function: Any, module: Any, *args: Any, **kwargs: Any) -> Any:
            if met:
                raise CannotCut(_ATTENTION_TWICE)
            met.append(module)
            found = args[:3], self._attend(call, function, module, args[3:], kwargs)
            with intercepted(None):
                return attention(*self._checked(call, found)), None

        with _before_attention(met), intercepted(answer):
            y = self._forward(*call.args, **call.kwargs)
        if not met:
            raise CannotCut(_NO_ATTENTION)
        return self._rows(call, y)

    def _rows(self, call: PieceCall, y: Any) -> torch.Tensor:
        if isinstance(y, tuple) and all(other is None for other in y[1:]):
            raise CannotCut("it returns a tuple")
        if not isinstance(y, torch.Tensor) or y.shape[:2] != call.x.shape[:2]:
            raise CannotCut("its output is not one tensor with a row for each token")
        return y

    def _attend(
        self, call: PieceCall, function: Any, module: Any, args: Any, kwargs: Any
    ) -> Attend:
        for tensor in tensors_in((args, kwargs)):
            if not (call.is_argument(tensor) or self._owned(tensor)):
                raise CannotCut("its attention takes a tensor that is made inside of the layer")
        return AttentionCall(function, module, *map_tensors(call.origin, (args, kwargs)))

    def _checked(self, call: PieceCall, found: tuple[Parts, Attend]) -> tuple[Parts, Attend]:
        tokens = call.x.shape[1]
        if any(part.dim() != 4 or part.shape[2] != tokens for part in found[0]):
            raise CannotCut("its attention does not take one query, key and value for each token")
        return found
