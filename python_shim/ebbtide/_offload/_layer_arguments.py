"""The arguments of one call of a layer, and the same call for a piece of the tokens.

A layer's input is (batch, tokens, width). Of the other arguments, every tensor that has a row for each
token is cut along it: positions, rotary embeddings, row-wise masks. The cut must be undone where the
whole attention is called, so each slice remembers the tensor it is of.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import torch

from ._pieces import Span

_INPUT = "hidden_states"  # the input's name where it is not the first positional argument


NO_BATCH = "its input is not a tensor of batch x tokens x width"


class CannotCut(Exception):
    """Why a layer has to be treated whole, in a few words."""


@dataclasses.dataclass(frozen=True)
class PieceCall:
    """Arguments ready to be called with, and which of them are slices of what."""

    x: torch.Tensor
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    origins: dict[int, torch.Tensor]  # by id of a tensor among the arguments: the whole-length one

    def is_argument(self, tensor: torch.Tensor) -> bool:
        return id(tensor) in self.origins

    def origin(self, value: Any) -> Any:
        """The whole-length tensor that an argument is a slice of; anything else is itself."""
        return self.origins.get(id(value), value)


def input_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The layer's input among its arguments, None if it is not found."""
    return args[0] if args else kwargs.get(_INPUT)


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """The tensors in a value or in containers of it."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from tensors_in(item)
    elif isinstance(value, dict):
        yield from tensors_in(tuple(value.values()))


def map_tensors(function: Callable[[torch.Tensor], Any], value: Any) -> Any:
    """`value` with each tensor in it, or in containers of it, replaced."""
    if isinstance(value, torch.Tensor):
        return function(value)
    if type(value) in (tuple, list):
        return type(value)(map_tensors(function, item) for item in value)
    if type(value) is dict:
        return {name: map_tensors(function, item) for name, item in value.items()}
    return value


def is_cache(value: Any) -> bool:
    """A cache of keys and values, whatever its class."""
    return hasattr(value, "get_seq_length") and hasattr(value, "update")


def is_filled(cache: Any) -> bool:
    """Whether it holds something of earlier tokens."""
    try:
        return bool(cache.get_seq_length())
    except ValueError:  # one of recurrent layers alone knows no length
        return bool(cache.has_previous_state())


class LayerCall:
    """One call. Holds the arguments beside the input, not the input itself."""

    def __init__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        x = input_of(args, kwargs)
        if not isinstance(x, torch.Tensor) or x.dim() != 3:
            raise CannotCut(NO_BATCH)
        self.batch, self.tokens = x.shape[0], x.shape[1]
        self._is_named = not args
        self._args = args[1:]
        self._kwargs = {name: value for name, value in kwargs.items() if args or name != _INPUT}
        self._pieces: dict[Span, tuple[Any, Any, dict[int, torch.Tensor]]] = {}

    def tensors(self) -> list[torch.Tensor]:
        """The tensors among the arguments, without the input."""
        return list(tensors_in((self._args, self._kwargs)))

    def let_go(self) -> None:
        """Of the arguments: no piece is asked for any more."""
        self._args, self._kwargs, self._pieces = (), {}, {}

    def piece(self, x: torch.Tensor, span: Span) -> PieceCall:
        """The call for these tokens; `x` is the input's piece."""
        if span not in self._pieces:
            self._pieces[span] = self._sliced(span)
        args, kwargs, origins = self._pieces[span]
        if self._is_named:
            return PieceCall(x, (), {_INPUT: x, **kwargs}, origins)
        return PieceCall(x, (x, *args), kwargs, origins)

    def _sliced(self, span: Span) -> tuple[Any, Any, dict[int, torch.Tensor]]:
        origins: dict[int, torch.Tensor] = {}

        def sliced(tensor: torch.Tensor) -> torch.Tensor:
            dim = None if span.tokens == self.tokens else self._token_dim(tensor)
            piece = tensor if dim is None else span.of(tensor, dim)
            origins[id(piece)] = tensor
            return piece

        args, kwargs = map_tensors(sliced, (self._args, self._kwargs))
        return args, kwargs, origins

    def _token_dim(self, tensor: torch.Tensor) -> int | None:
        """The dimension of a tensor that runs over the tokens, None if there is none.

        A mask of tokens x tokens may be cut or not: attention gets the whole one again.
        """
        shape, tokens, batches = tensor.shape, self.tokens, (1, self.batch)
        if tensor.dim() < 2:
            return 0 if tensor.dim() == 1 and shape[0] == tokens else None
        if tensor.dim() <= 3 and shape[1] == tokens and shape[0] in batches:
            return 1
        if tensor.dim() == 2:
            return 0 if shape[0] == tokens else None
        if tensor.dim() == 3:  # positions of several kinds: kinds x batch x tokens
            return 2 if shape[2] == tokens and shape[1] in batches else None
        return tensor.dim() - 2 if shape[-2] == tokens else None
