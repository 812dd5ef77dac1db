"""What autograd saves while a piece or an attention runs, handed to a store.

Note [Saved late]
A saved tensor is handed over when the run has ended, not when it is packed: by then what no output
depends on has died with its graph (the after part of a layer computes q, k, v for nothing), and the
storages that others hold anyway (the layer's input, attention's output) are known and only noted.
Tensors are told apart by storage and version while all of them are alive, so that an address used
twice cannot be mistaken for one tensor.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch

from ._native_saving import Externals, NativeLanding, NativeRecorder
from ._store import Handed, Saved, Store, raise_changed
from ._swap_engine import ALIGNMENT

_SMALL_BYTES = 4096  # not worth a copy of its own: seeds, scalars, rows of statistics


def occupied(size: int) -> int:
    """Bytes that so many take in host memory."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def storage_of(tensor: torch.Tensor) -> int:
    """Tells storages apart as long as they are alive."""
    return tensor.untyped_storage()._cdata


def span_of(tensor: torch.Tensor, strides: Sequence[int] | None = None) -> int:
    """Elements of its storage from the first to the last that `tensor` covers, or would with other strides."""
    if tensor.numel() == 0:
        return 0
    strides = tensor.stride() if strides is None else strides
    return 1 + sum((size - 1) * stride for size, stride in zip(tensor.size(), strides, strict=True))


def dense_like(tensor: torch.Tensor, dim: int, size: int) -> torch.Tensor:
    """Empty, without gaps, in `tensor`'s order of dimensions; dimension `dim` is of another size."""
    order = sorted(range(tensor.dim()), key=tensor.stride, reverse=True)
    sizes = [size if d == dim else tensor.shape[d] for d in order]
    dense = torch.empty(sizes, dtype=tensor.dtype, device=tensor.device)
    return dense.permute([order.index(d) for d in range(tensor.dim())])


def laid_out(tensor: torch.Tensor, strides: Sequence[int]) -> torch.Tensor:
    """`tensor`, or a copy that lies in memory with these strides."""
    own = zip(tensor.size(), tensor.stride(), strides, strict=True)
    if all(size == 1 or stride == wanted for size, stride, wanted in own):
        return tensor
    room = torch.empty(span_of(tensor, strides), dtype=tensor.dtype, device=tensor.device)
    return room.as_strided(tensor.size(), strides).copy_(tensor)


class Landing:
    """A whole-length tensor that is put back for backward: saved views of it need no bytes of their own."""

    __slots__ = ("_offset", "_size", "_stride", "_tensor", "storage")

    def __init__(self, tensor: torch.Tensor) -> None:
        self.storage = storage_of(tensor)
        self._offset = tensor.storage_offset()
        self._size, self._stride = tensor.size(), tensor.stride()
        self._tensor: torch.Tensor | None = tensor

    def put(self, tensor: torch.Tensor) -> None:
        """Put back these values, in the layout that the views were taken of."""
        self._tensor = laid_out(tensor, self._stride)

    def drop(self) -> None:
        self._tensor = None

    def view(self, size: torch.Size, stride: tuple[int, ...], offset: int) -> torch.Tensor:
        base = self._tensor
        assert base is not None, "a saved view was asked for before its tensor landed"
        return base.as_strided(size, stride, offset - self._offset + base.storage_offset())


class _Packed:
    """One tensor that autograd saved: its place, and where its bytes are."""

    __slots__ = ("__weakref__", "offset", "size", "source", "stride", "tensor", "version")

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor: torch.Tensor | None = tensor.detach()
        self.version = tensor._version
        self.size, self.stride = tensor.size(), tensor.stride()
        self.offset = tensor.storage_offset()
        self.source: Saved | Landing | None = None

    def unpack(self) -> torch.Tensor:
        if self.tensor is not None:
            if self.tensor._version != self.version:
                raise_changed("a tensor", self.version, self.tensor._version)
            return self.tensor
        if isinstance(self.source, Landing):
            return self.source.view(self.size, self.stride, self.offset)
        assert self.source is not None
        base = self.source.get()
        return base.as_strided(self.size, self.stride, base.storage_offset() + self.offset)


class _Handed(NamedTuple):
    saved: Sequence[Saved]
    occupied_bytes: int


class Recorder:
    """Collects what autograd saves during one run, then hands it to a store.

    For stores of Python; NativeRecorder does the same for those of C++.
    """

    def __init__(self, externals: Externals) -> None:
        self._externals = externals
        self._packed: list[weakref.ref[_Packed]] = []

    def hooks(self) -> torch.autograd.graph.saved_tensors_hooks:
        return torch.autograd.graph.saved_tensors_hooks(self._pack, _unpack)

    def _pack(self, tensor: torch.Tensor) -> object:
        # Never the tensor itself: a result that its own node saves would keep that node for ever.
        if type(tensor) not in _PLAIN or tensor.layout != torch.strided:
            return tensor.detach()
        if tensor.nbytes < _SMALL_BYTES or storage_of(tensor) in self._externals:
            return tensor.detach()
        packed = _Packed(tensor)
        self._packed.append(weakref.ref(packed))
        return packed

    def measure(self, elsewhere: Iterable[int]) -> int:
        """Bytes of a store that hand_over() would take, but for those of storages elsewhere. Nothing moves."""
        elsewhere = set(elsewhere)
        extents = {
            (storage_of(packed.tensor), *_extent(packed.tensor)): packed.tensor.element_size()
            for reference in self._packed
            if (packed := reference()) is not None and packed.tensor is not None
            if storage_of(packed.tensor) not in elsewhere
        }
        return sum(occupied(count * size) for (_, _, count), size in extents.items())

    def hand_over(
        self, store: Store, landings: Iterable[Landing], limit: float = math.inf
    ) -> Handed | None:
        """Give what is still needed to `store`; views of `landings` are only noted. See Note [Saved late].

        None, and nothing has moved, if it takes more than `limit` bytes.
        """
        by_storage = {landing.storage: landing for landing in landings}
        occupied_bytes = self.measure(by_storage)
        if occupied_bytes > limit:
            return None
        wanted: dict[_Bytes, torch.Tensor] = {}
        users: list[tuple[_Packed, _Bytes]] = []
        alive = [packed for reference in self._packed if (packed := reference()) is not None]
        held = [packed.tensor for packed in alive]  # keeps every storage alive until the last is told apart
        for packed, tensor in zip(alive, held, strict=True):
            assert tensor is not None
            if tensor._version != packed.version:
                raise_changed("a tensor", packed.version, tensor._version)
            landing = by_storage.get(storage_of(tensor))
            if landing is not None:
                packed.source = landing
            else:
                key, begin = _bytes_of(tensor)
                if key not in wanted:
                    wanted[key] = tensor.as_strided((key[2],), (1,), begin)
                users.append((packed, key))
                packed.offset -= begin
            packed.tensor = None
        self._packed.clear()
        saved = dict(zip(wanted, store.save_all(list(wanted.values())), strict=True)) if wanted else {}
        for packed, key in users:
            packed.source = saved[key]
        return _Handed(list(saved.values()), occupied_bytes)


AnyLanding = Landing | NativeLanding
AnyRecorder = Recorder | NativeRecorder


def landing_for(store: Store, tensor: torch.Tensor) -> AnyLanding:
    """Where views of `tensor` come from that the recorders of a store like this one see."""
    return NativeLanding(tensor) if store.is_native else Landing(tensor)


def recorder_for(store: Store, externals: Externals) -> AnyRecorder:
    """One whose hand_over() may get `store`, or another that is native if this one is."""
    return externals.native.recorder() if store.is_native else Recorder(externals)  # type: ignore[no-any-return]


_PLAIN = (torch.Tensor, torch.nn.Parameter)
_Bytes = tuple[int, int, int, torch.dtype, int]  # storage, first element, elements, type, version


def _unpack(packed: object) -> torch.Tensor:
    return packed.unpack() if isinstance(packed, _Packed) else packed  # type: ignore[return-value]


def _bytes_of(tensor: torch.Tensor) -> tuple[_Bytes, int]:
    """What to save so that `tensor` can be made of it, and the element of its storage that it begins with."""
    begin, count = _extent(tensor)
    return (storage_of(tensor), begin, count, tensor.dtype, tensor._version), begin


def _extent(tensor: torch.Tensor) -> tuple[int, int]:
    """First element and number of elements to save of a tensor's storage.

    Of a view with gaps (one half of a fused projection) the whole storage: the other half will ask
    for it, too.
    """
    span = span_of(tensor)
    if span <= tensor.numel():
        return tensor.storage_offset(), span
    return 0, tensor.untyped_storage().nbytes() // tensor.element_size()
