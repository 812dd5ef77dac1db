"""`ebbtide.tag`: what a block of a program saves for backward goes to host memory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch

from .._errors import EbbtideError
from ._layer_saving import Recorder
from ._native_saving import Externals
from ._registry import registry
from ._report import at_exit
from ._store import Saved


@contextlib.contextmanager
def tag(name: str) -> Iterator[None]:
    """Swap what autograd saves inside of the block; it leaves the device when the block ends.

    `name` is what it is called in stats and in the report. Parameters stay, and so do tensors of
    less than 4 KiB; what the program itself still holds is copied, but not freed. Results are the
    same bits. Of blocks inside of each other the innermost counts, as with all of torch's
    saved_tensors_hooks. Host memory is limited by EBBTIDE_HOST; what finds no room stays on the
    device. A block that raises swaps nothing. Raises EbbtideError for a name that is no text.
    """
    if not isinstance(name, str) or not name:
        raise EbbtideError(f"tag({name!r}): allowed is a name, such as 'experts'")
    recorder, stores = _TagRecorder(Externals()), _ByDevice()
    with recorder.hooks():
        yield
    handed = recorder.hand_over(stores, [])
    registry.count(name, handed.saved if handed is not None else [])
    stores.block_ended()
    at_exit.register()


class _TagRecorder(Recorder):
    """Parameters are never taken, nor views of them."""

    def _pack(self, tensor: torch.Tensor) -> object:
        base = tensor if tensor._base is None else tensor._base
        if base.is_leaf and base.requires_grad:
            return tensor
        return super()._pack(tensor)


class _ByDevice:
    """A store that gives each tensor to the store of its device."""

    is_native = False

    def __init__(self) -> None:
        self._used: set[torch.device] = set()

    def save(self, tensor: torch.Tensor) -> Saved:
        self._used.add(tensor.device)
        return registry.store_of(tensor.device).save(tensor)

    def save_all(self, tensors: Sequence[torch.Tensor]) -> list[Saved]:
        """One by one: a block may be a whole model, whose tensors must not all return with the first."""
        return [self.save(tensor) for tensor in tensors]

    def block_ended(self) -> None:
        for device in self._used:
            registry.store_of(device).layer_ended()
