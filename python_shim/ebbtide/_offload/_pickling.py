"""What becomes of a model with offload when it is copied or pickled.

A deep copy is offloaded, too. A pickled model (torch.save(model), a process that is spawned) is the model
as it was before: its bytes name nothing of Ebbtide, so it can be loaded where there is none.
"""

from __future__ import annotations

import contextlib
import copy
import operator
from collections.abc import Callable
from typing import Any, TypeVar

import torch

_Self = TypeVar("_Self", bound="Unpickled")


class Unpickled:
    """Something that offload puts into a model, with something else in its place where it is pickled."""

    def stand_in(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """What to call with what, to make what is in its place; of the standard library alone."""
        return type(None), ()

    def __reduce_ex__(self, _: Any) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.stand_in()

    def __deepcopy__(self: _Self, memo: dict[int, Any]) -> _Self:
        twin = memo[id(self)] = object.__new__(type(self))
        twin.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return twin


class Hook(Unpickled):
    """A hook of a module, which does nothing once it was pickled."""

    def __init__(self, function: Callable[..., None]) -> None:
        self._function = function

    def __call__(self, *args: Any) -> None:
        self._function(*args)

    def stand_in(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return getattr, (contextlib.nullcontext(), "__exit__")  # takes anything and returns nothing


def former_attribute(
    module: torch.nn.Module, name: str, former: Any
) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """A stand-in: `former`, which was in the module's place of this name; None: its class's."""
    if former is None:
        return getattr, (module, name)
    return operator.getitem, ([former], 0)
