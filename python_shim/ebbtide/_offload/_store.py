"""Where saved tensors are kept until backward asks for them: the protocol, and the device itself.

A store takes over the bytes of a tensor and gives back the same bits in the same dtype, shape and
strides. What was saved is released by hand, or when the last reference to it goes: an abandoned
graph leaks nothing on either side.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch


class Saved(Protocol):
    """One tensor in a store. Not thread-safe: backward has one thread per device."""

    @property
    def size_bytes(self) -> int: ...

    @property
    def swapped_bytes(self) -> int:
        """How many of them left the device, or are about to."""

    def prefetch(self) -> None:
        """Ask for it early. Never waits on the host; a second call does nothing."""

    def get(self) -> torch.Tensor:
        """The tensor, usable on the current stream. Raises RuntimeError if it was changed or released."""

    def release(self) -> None:
        """Forget it, on the host and on the device. Idempotent."""


class Handed(Protocol):
    """What a recorder handed over to a store."""

    @property
    def saved(self) -> Sequence[Saved]: ...

    @property
    def occupied_bytes(self) -> int:
        """That it takes of host memory, if it goes there."""


class Store(Protocol):
    """Takes tensors over. The caller drops its own reference to a tensor it has saved."""

    @property
    def is_native(self) -> bool:
        """Whether it takes over from recorders of C++, and gives tensors back in their own shape."""

    @property
    def held_bytes(self) -> int:
        """Saved, not released, and on the device to stay: without what is on its way."""

    def save(self, tensor: torch.Tensor) -> Saved:
        """`tensor` is contiguous and carries no graph."""

    def save_all(self, tensors: Sequence[torch.Tensor]) -> Sequence[Saved]:
        """`save` for tensors that are needed together, in their order."""

    def layer_ended(self) -> None:
        """What was saved before the last such call has had its time: it leaves the device now.

        Called once in a layer's forward, or twice where that is time enough.
        """


class Witness:
    """Notices an in-place change of a tensor without keeping its bytes.

    An alias made by detach() shares the version counter; giving the alias other data leaves the
    counter shared and lets the bytes go.
    """

    __slots__ = ("_alias", "_name", "_version")

    def __init__(self, tensor: torch.Tensor, name: str) -> None:
        self._alias = tensor.detach()
        self._alias.data = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
        self._version = tensor._version
        self._name = name

    def check(self) -> None:
        """Raises RuntimeError if the tensor was changed in place since."""
        if self._alias._version != self._version:
            raise_changed(self._name, self._version, self._alias._version)


def raise_changed(name: str, saved: int, found: int) -> None:
    raise RuntimeError(
        f"{name} was changed in place after ebbtide.offload saved it for backward (version {found}, "
        f"expected {saved}): use an operation that makes a new tensor, or change it after backward"
    )


class KeepStore:
    """Saved tensors stay where they are."""

    is_native = False

    def __init__(self) -> None:
        self.held_bytes = 0

    def save(self, tensor: torch.Tensor) -> Kept:
        return Kept(self, tensor.detach())

    def save_all(self, tensors: Sequence[torch.Tensor]) -> list[Kept]:
        return [self.save(tensor) for tensor in tensors]

    def layer_ended(self) -> None:
        return


class Kept:
    """A tensor that stays on its device."""

    __slots__ = ("_store", "_tensor", "_version", "size_bytes", "swapped_bytes")

    def __init__(self, store: KeepStore, tensor: torch.Tensor) -> None:
        self._store = store
        self._tensor: torch.Tensor | None = tensor
        self._version = tensor._version
        self.size_bytes, self.swapped_bytes = tensor.nbytes, 0
        store.held_bytes += self.size_bytes

    def prefetch(self) -> None:
        return

    def get(self) -> torch.Tensor:
        if self._tensor is None:
            raise RuntimeError("a saved tensor was asked for after its release")
        if self._tensor._version != self._version:
            raise_changed("a tensor", self._version, self._tensor._version)
        return self._tensor

    def release(self) -> None:
        if self._tensor is not None:
            self._tensor = None
            self._store.held_bytes -= self.size_bytes

    def __del__(self) -> None:
        self.release()
