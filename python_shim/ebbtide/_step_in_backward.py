"""`ebbtide.step_in_backward`: an optimizer's step for each parameter as soon as its gradient is there.

Gradients then need not all be alive at once: at the peak there is one, instead of as much as all
parameters weigh. (As LOMO does, arXiv 2306.09782, with any optimizer; the Mini-Sequence
Transformer's longest run did so, arXiv 2407.15892.)
"""

from __future__ import annotations

import inspect
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import torch

from ._errors import EbbtideError

# By optimizer: what step_in_backward() made of it.
_stepped: weakref.WeakKeyDictionary[torch.optim.Optimizer, _SteppedInBackward] = (
    weakref.WeakKeyDictionary()
)


def step_in_backward(optimizer: torch.optim.Optimizer, *, off: bool = False) -> None:
    """Have each parameter updated inside backward, and its gradient freed; `off=True` undoes it.

    The rest of a program stays: `optimizer.step()` finds nothing left to do, learning rates are
    those of its param_groups at the moment of backward, and its state_dict() is what it always is.
    The parameters after a step are the same bits, for optimizers that treat each parameter by itself.

    Not for what needs all gradients at once: clipping by norm (finds none to clip), gradient
    accumulation, GradScaler, and DDP, which sums gradients of its processes later (FSDP2's
    fully_shard works). Raises EbbtideError, which names the remedy, for no optimizer, for one
    whose step() needs a closure (LBFGS), and for parameters that several processes hold whole; a second backward before
    `optimizer.step()` raises it inside of backward (unless `optimizer.zero_grad()` was called,
    as after a backward that failed). Not thread-safe; call it between steps.
    """
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise EbbtideError(
            f"step_in_backward({type(optimizer).__name__}): allowed is a torch.optim.Optimizer "
            "(of accelerate's and others' wrappers the one inside)"
        )
    before = _stepped.pop(optimizer, None)
    if before is not None:
        before.undo()
    if off:
        return
    if _needs_closure(optimizer):
        raise EbbtideError(
            f"step_in_backward({type(optimizer).__name__}): its step() needs a closure, and with it all "
            "gradients at once: use another optimizer, or leave it off"
        )
    if any(_is_replicated(parameter) for parameter, _ in _parameters(optimizer)):
        raise EbbtideError(
            "step_in_backward: several processes hold these parameters whole, and DDP sums their "
            "gradients after such a step: leave it off, or shard them (torch.distributed.fsdp.fully_shard)"
        )
    _stepped[optimizer] = _SteppedInBackward(optimizer)


def _parameters(optimizer: torch.optim.Optimizer) -> Iterator[tuple[torch.Tensor, int]]:
    """Each with the index of its group."""
    for index, group in enumerate(optimizer.param_groups):
        for parameter in group["params"]:
            yield parameter, index


def _needs_closure(optimizer: torch.optim.Optimizer) -> bool:
    closure = inspect.signature(type(optimizer).step).parameters.get("closure")
    return closure is not None and closure.default is inspect.Parameter.empty


def _is_replicated(parameter: torch.Tensor) -> bool:
    distributed = torch.distributed
    if not distributed.is_available() or not distributed.is_initialized() or distributed.get_world_size() == 1:
        return False
    from torch.distributed.tensor import DTensor

    return not isinstance(parameter, DTensor)


class _SteppedInBackward:
    """The hooks of an optimizer's parameters. Keeps no reference to it: it goes when the program drops it."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._optimizer = weakref.ref(optimizer)
        self._done: set[int] = set()  # ids of parameters updated since the program's last step() or zero_grad()
        self._is_inside = False
        self._lock = threading.Lock()  # autograd has a thread for each device
        self._group_of = {id(parameter): index for parameter, index in _parameters(optimizer)}
        self._hooks: list[Any] = [
            parameter.register_post_accumulate_grad_hook(self._update)
            for parameter, _ in _parameters(optimizer)
            if parameter.requires_grad
        ]
        self._hooks.append(optimizer.register_step_post_hook(self._note_step))
        optimizer.zero_grad = self._zero_grad  # type: ignore[method-assign]  # there are no hooks for it

    def undo(self) -> None:
        for hook in self._hooks:
            hook.remove()
        del self._optimizer().zero_grad  # type: ignore[union-attr]  # the class's own shows again

    def _zero_grad(self, *args: Any, **kwargs: Any) -> None:
        self._done.clear()
        optimizer = self._optimizer()
        assert optimizer is not None  # it is called
        type(optimizer).zero_grad(optimizer, *args, **kwargs)

    def _note_step(self, *_: Any) -> None:
        if not self._is_inside:
            self._done.clear()

    def _update(self, parameter: torch.Tensor) -> None:
        optimizer = self._optimizer()
        if optimizer is None or parameter.grad is None:
            return
        if id(parameter) in self._done:
            raise EbbtideError(
                "step_in_backward: a parameter got a second gradient before optimizer.step(): with "
                "gradient accumulation the optimizer must wait for all of them: "
                "ebbtide.step_in_backward(optimizer, off=True); after a backward that failed, call "
                "optimizer.zero_grad()"
            )
        with self._lock:
            self._step(optimizer, parameter)
        self._done.add(id(parameter))
        parameter.grad = None

    def _step(self, optimizer: torch.optim.Optimizer, parameter: torch.Tensor) -> None:
        groups = optimizer.param_groups
        # The class's own step: schedulers count calls of the instance's.
        optimizer.param_groups = [{**groups[self._group_of[id(parameter)]], "params": [parameter]}]
        self._is_inside = True
        try:
            type(optimizer).step(optimizer)
        finally:
            self._is_inside = False
            optimizer.param_groups = groups
