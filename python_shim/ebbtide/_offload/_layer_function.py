"""A cut layer as one node of autograd's graph."""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from ._layer_backward import run_backward
from ._layer_forward import run_forward
from ._layer_record import LayerRecord


def _is_ours_alone(tensor: torch.Tensor, references: int) -> bool:
    """Whether nobody but the running backward holds this gradient: then it may be overwritten.

    `references` is sys.getrefcount() of it in backward(). A caller's grad_outputs, a hook that keeps
    gradients, another branch of the graph: each holds one more, of the object, the tensor or the storage.
    """
    return (
        references <= _Probe.references
        and tensor._use_count() <= _Probe.uses
        and _storage_uses(tensor) <= _Probe.storage_uses
        and tensor.is_contiguous()
        and tensor.untyped_storage().nbytes() == tensor.nbytes
        and not tensor.requires_grad
    )


def _storage_uses(tensor: torch.Tensor) -> int:
    return torch._C._storage_Use_Count(tensor.untyped_storage()._cdata)


class _Probe(torch.autograd.Function):
    """Counts who holds a gradient that nobody else needs."""

    references = uses = storage_uses = 0

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x * 1

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: torch.Tensor) -> torch.Tensor:
        references = sys.getrefcount(dy)
        _Probe.references, _Probe.uses = references, dy._use_count()
        _Probe.storage_uses = _storage_uses(dy)
        return dy * 1


def measure_references() -> None:
    """To be called before the first backward. It may not run inside of one."""
    if not _Probe.uses:
        with torch.enable_grad():
            x = torch.zeros(2, requires_grad=True)
            (_Probe.apply(_Probe.apply(x)) * 1).sum().backward()


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
