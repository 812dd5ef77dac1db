"""A cut layer as one node of autograd's graph."""

from __future__ import annotations

import sys
from typing import Any, ClassVar

import torch
from torch.autograd.function import once_differentiable

from ._layer_backward import run_backward
from ._layer_forward import run_forward
from ._layer_record import LayerRecord


def _is_ours_alone(tensor: torch.Tensor, references: int) -> bool:
    """Whether nobody but the running backward holds this gradient: then it may be overwritten.

    `references` is sys.getrefcount() of it in backward(). A caller's grad_outputs, a hook that keeps
    gradients, another branch of the graph: each holds one more, of the object, the tensor, the storage or,
    where the model reshaped its output, of the tensor that the gradient is a view of.
    """
    alone = _Probe.holders[tensor._is_view()]
    return (
        all(found <= at_least for found, at_least in zip(_holders(tensor, references), alone, strict=True))
        and tensor.is_contiguous()
        and tensor.untyped_storage().nbytes() == tensor.nbytes
        and not tensor.requires_grad
    )


def _holders(tensor: torch.Tensor, references: int) -> tuple[int, int, int, int]:
    """How many hold the object, the tensor, its storage, and its base."""
    storage_uses = torch._C._storage_Use_Count(tensor.untyped_storage()._cdata)
    base = tensor._base
    return references, tensor._use_count(), storage_uses, 0 if base is None else base._use_count()


class _Probe(torch.autograd.Function):
    """Counts who holds a gradient that nobody else needs."""

    holders: ClassVar[dict[bool, tuple[int, int, int, int]]] = {}  # by whether it is a view

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x * 1

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: torch.Tensor) -> torch.Tensor:
        references = sys.getrefcount(dy)
        _Probe.holders[dy._is_view()] = _holders(dy, references)
        return dy * 1


def measure_references() -> None:
    """To be called before the first backward. It may not run inside of one."""
    if not _Probe.holders:
        with torch.enable_grad():
            x = torch.zeros(2, requires_grad=True)
            (_Probe.apply(_Probe.apply(x)) * 1).sum().backward()
            (_Probe.apply(_Probe.apply(x)).view(2, 1) * 1).sum().backward()


class LayerFunction(torch.autograd.Function):
    """apply(record, x: batch x tokens x width, *trainable parameters) -> the layer's output.

    Parameters are inputs, so autograd accumulates their gradients, once: post-accumulate hooks, DDP and
    optimizers in backward work. The record is held by this node alone and goes with it.
    """

    @staticmethod
    def forward(
        ctx: Any, record: LayerRecord, x: torch.Tensor, *parameters: torch.Tensor
    ) -> torch.Tensor:
        ctx.record = record
        return run_forward(record, x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: torch.Tensor) -> Any:
        references = sys.getrefcount(dy)  # on a line of its own: an argument list holds one more
        dx, gradients = run_backward(ctx.record, dy, _is_ours_alone(dy, references))
        return None, dx, *gradients
