"""Hints for the engine: where a root module's forward and an optimizer's step begin and end.

Note [Root modules]
A root is a module called while no other module runs on this thread. torch's global forward hooks
could tell, but any such hook sends every module call down the long way of `Module._call_impl`
(0.9 us for a pre-hook, 1.4 us for a pair), a hook pair loses count when a KeyboardInterrupt
passes, and `torch.compile` warns about global hooks. So `Module.__call__` itself is wrapped:
0.25 us a call, and `finally` cannot lose count. torch.fx replaces the same attribute and puts
ours back.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from ._abi import MAX_EXTENTS, Mark

SendMark = Callable[[int, int, list[int]], object]
TellForm = Callable[[list[int]], tuple[int, list[int]]]  # extents of the input -> a number below 2^16, tokens of pieces
_MAX_SHAPES = 8  # extents of tensors; behind them there is room for pieces


class _Thread(threading.local):
    inside_module = False


_thread = _Thread()
_enabled = False
_form: TellForm | None = None


def _in_backward() -> bool:
    """A forward here is a recomputation, an optimizer here is fused into the backward pass."""
    return torch._C._current_graph_task_id() != -1


def _tensors(arguments: Any, depth: int = 2) -> Iterator[torch.Tensor]:
    """The tensors among a call's arguments, also in the lists and dicts among them."""
    values = arguments.values() if isinstance(arguments, Mapping) else arguments
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif depth > 1 and isinstance(value, (list, tuple, Mapping)):
            yield from _tensors(value, depth - 1)


def _extents(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[int]:
    """The shapes of a call's tensors, one after the other: sizes of what it allocates follow from them."""
    extents: list[int] = []
    for tensor in _tensors((*args, kwargs)):
        shape = tensor.shape
        if len(extents) + len(shape) > _MAX_SHAPES:
            break
        # A symbolic extent would be specialised if it were read.
        if any(type(extent) is not int for extent in shape):
            return []
        extents += shape
    return extents


def _wrap_module_call(original: Callable[..., Any], mark: SendMark) -> Any:
    thread = _thread
    is_compiling = torch.compiler.is_compiling
    is_grad_enabled = torch.is_grad_enabled

    def __call__(self: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        # is_compiling() comes first: Dynamo folds it, and then traces none of the rest.
        if is_compiling() or thread.inside_module:
            return original(self, *args, **kwargs)
        thread.inside_module = True
        try:
            if _enabled and not _in_backward():
                kind = Mark.FORWARD if is_grad_enabled() else Mark.INFERENCE
                extents = _extents(args, kwargs)
                form, pieces = _form(extents) if _form is not None else (0, [])
                extents += [-tokens for tokens in pieces[: MAX_EXTENTS - len(extents)]]
                mark(kind, form << 48 | id(self), extents)
            return original(self, *args, **kwargs)
        finally:
            thread.inside_module = False

    return __call__


def _optimizer_hook(kind: Mark, mark: SendMark) -> Any:
    is_compiling = torch.compiler.is_compiling

    def hook(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        if not is_compiling() and _enabled and not _in_backward():
            mark(kind, id(optimizer), [])

    return hook


def install(mark: SendMark) -> None:
    """Send hints to `mark(kind, source, extents of the input)` from now on. Call it once."""
    global _enabled
    torch.nn.Module.__call__ = _wrap_module_call(torch.nn.Module.__call__, mark)
    register_optimizer_step_pre_hook(_optimizer_hook(Mark.OPTIMIZER, mark))
    register_optimizer_step_post_hook(_optimizer_hook(Mark.OPTIMIZER_END, mark))
    _enabled = True


def set_form(form: TellForm) -> None:
    """Have `form` tell of each forward, from its input, what decides beforehand how many tensors it makes, and how
    many tokens the pieces have that it is run in.

    Rounds of different forms are different programs to the planner; 0: nothing is known. See ebbtide_mark and
    ebbtide_mark_input.
    """
    global _form
    _form = form


def disable() -> None:
    """Send no more hints: the engine is finished, or this is a forked child without it."""
    global _enabled
    _enabled = False
