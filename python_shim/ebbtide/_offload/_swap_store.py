"""Saved tensors in pinned host memory: they leave behind the work that made them, and return early."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import torch

from .._stats import device_index
from ._swap_engine import OutOfHostMemory, SwapEngine, SwapStats
from ._swap_entry import Entry, Key

_MOST_IN_FLIGHT_BYTES = 1 << 30  # without layers to go by


class SwapStore:
    """Takes tensors of one device over into at most `host_budget` bytes of host memory.

    What does not fit there stays on the device, split by token: the first rows of a tensor leave, the
    others are kept. Lives as long as anything in it. Not thread-safe beyond what Python gives: forward
    and backward threads take turns.
    """

    def __init__(self, device: torch.device | str | int, host_budget: int) -> None:
        index = device_index(device)
        self._device = torch.device("cpu") if index < 0 else torch.device("cuda", index)
        self._index = index
        self.engine = SwapEngine(index, host_budget)
        self.held_bytes = 0  # found no room on the host and stay on the device until they are released
        self._layers: list[list[Entry]] = [[], []]  # on their way out: of the layer before, of this one
        self._in_flight: dict[Key, tuple[Entry, int]] = {}
        self._in_flight_bytes = 0
        self._has_layers = False

    def save(self, tensor: torch.Tensor) -> Swapped:
        """Take over the bytes of `tensor`, of any strides. The caller drops its own reference.

        The same bytes saved again while they are on their way are stored once.
        """
        return self.save_all([tensor])[0]

    def save_all(self, tensors: Sequence[torch.Tensor]) -> list[Swapped]:
        """`save` for tensors that are needed together: they leave, return and take memory as one.

        Costs the host hardly more than one. They are on the device again, all of them, from the first
        `prefetch` or `get` of one until the last of them is released.
        """
        keys: list[Key] = []
        group: list[torch.Tensor] = []
        places: list[tuple[Entry | None, int]] = []  # no entry yet: the place in the group
        for tensor in tensors:
            flat = self._flat(tensor)
            key = _key(flat)
            if key in self._in_flight:
                places.append(self._in_flight[key])
            elif key in keys:
                places.append((None, keys.index(key)))
            elif flat.nbytes == 0:
                places.append((self._entry([flat]), 0))
            else:
                places.append((None, len(group)))
                keys.append(key)
                group.append(flat)
        taken = self._take_over(group, keys) if group else []
        found = [taken[number] if entry is None else (entry, number) for entry, number in places]
        return [Swapped(self, *place, tensor) for place, tensor in zip(found, tensors, strict=True)]

    def layer_ended(self) -> None:
        """A layer has saved what it saves: what the layer before it saved may now leave the device.

        The next layer's work on the current stream begins when those copies have ended; the host does
        not wait.
        """
        self._has_layers = True
        self._let_go_of_one_layer()

    def let_go(self) -> None:
        """Everything on its way out leaves the device: the current stream waits for the copies."""
        self._let_go_of_one_layer()
        self._let_go_of_one_layer()

    def reserve(self, size: int) -> None:
        """Pin host memory for `size` bytes in all, now rather than step by step.

        As far as the budget and the system grant it; what they do not grant shows in stats().
        """
        stats = self.engine.stats()
        wanted = min(size, stats.host_budget_bytes, stats.pinned_limit_bytes)
        if wanted > stats.pinned_bytes:
            with contextlib.suppress(OutOfHostMemory):
                self.engine.reserve(wanted)

    def stats(self) -> SwapStats:
        return self.engine.stats()

    def close(self) -> None:
        """Give the host memory back. What is still saved can no longer be got."""
        self.let_go()
        self.engine.close()

    def stream(self) -> int:
        """The current compute stream as a number; 0 for host tensors, whose caller is the stream."""
        return 0 if self._index < 0 else torch._C._cuda_getCurrentRawStream(self._index)

    def forget(self, entry: Entry) -> None:
        """Nobody needs the entry any more, or it has left."""
        self._in_flight_bytes -= entry.size if entry.keys else 0
        for key in entry.keys:
            del self._in_flight[key]
        entry.keys = []

    def _flat(self, tensor: torch.Tensor) -> torch.Tensor:
        """All that `tensor` covers of its storage, contiguous and without a graph."""
        if tensor.device != self._device:
            raise ValueError(f"a tensor on {tensor.device} was given to the swap store of {self._device}")
        if tensor.is_conj() or tensor.is_neg():
            tensor = tensor.resolve_conj().resolve_neg()  # bytes alone do not carry these marks
        flat = tensor.detach()
        return flat if flat.is_contiguous() else flat.as_strided((_span(tensor),), (1,))

    def _entry(self, flats: list[torch.Tensor]) -> Entry:
        return Entry(self.engine, flats, self.stream())

    def _take_over(
        self, flats: list[torch.Tensor], keys: list[Key]
    ) -> list[tuple[Entry, int]]:
        """Where each of them is now: in one entry, or, if they do not fit together, each in its own."""
        entry = self._entry(flats)
        if entry.swap_out():
            self._note(entry, keys)
        elif len(flats) > 1:
            return [
                self._take_over([flat], [key])[0] for flat, key in zip(flats, keys, strict=True)
            ]
        self.held_bytes += entry.rest_bytes
        return [(entry, number) for number in range(len(flats))]

    def _note(self, entry: Entry, keys: list[Key]) -> None:
        entry.keys = list(keys)
        for number, key in enumerate(keys):
            self._in_flight[key] = (entry, number)
        self._in_flight_bytes += entry.size
        self._layers[1].append(entry)
        while not self._has_layers and self._in_flight_bytes > _MOST_IN_FLIGHT_BYTES:
            self._let_go_of_one_layer()

    def _let_go_of_one_layer(self) -> None:
        earlier, self._layers[0], self._layers[1] = self._layers[0], self._layers[1], []
        for entry in earlier:
            entry.let_go()
            self.forget(entry)


class Swapped:
    """One tensor in a SwapStore: the protocol `Saved`. Released at the latest when it goes."""

    __slots__ = ("_entry", "_number", "_size", "_store", "_stride", "size_bytes")

    def __init__(self, store: SwapStore, entry: Entry, number: int, tensor: torch.Tensor) -> None:
        entry.users += 1
        self._store, self._number = store, number
        self._entry: Entry | None = entry
        self._size, self._stride = tensor.size(), tensor.stride()
        self.size_bytes = entry.sizes[number]

    @property
    def swapped_bytes(self) -> int:
        """Bytes of it that are on the host, or on their way there; the others stay on the device."""
        entry = self._entry
        if entry is None or entry.ticket is None:
            return 0
        return self.size_bytes - (entry.rest_bytes if len(entry.sizes) == 1 else 0)

    def prefetch(self) -> None:
        if self._entry is not None:
            self._entry.prefetch(self._store.stream())

    def get(self) -> torch.Tensor:
        if self._entry is None:
            raise RuntimeError("a saved tensor was asked for after its release")
        return self._entry.get(self._number, self._size, self._stride, self._store.stream())

    def release(self) -> None:
        entry, self._entry = self._entry, None
        if entry is not None:
            entry.users -= 1
            if entry.users == 0:
                self._store.held_bytes -= entry.rest_bytes
                entry.release()
                self._store.forget(entry)

    def __del__(self) -> None:
        self.release()


def _key(flat: torch.Tensor) -> Key:
    """Tells bytes apart as long as their storage is alive; what is on its way keeps it alive."""
    storage, start = flat.untyped_storage()._cdata, flat.storage_offset()
    return storage, start, flat.numel(), flat.dtype, flat._version


def _span(tensor: torch.Tensor) -> int:
    """Elements of its storage from the first to the last that `tensor` covers."""
    last = sum((size - 1) * stride for size, stride in zip(tensor.size(), tensor.stride(), strict=True))
    return 1 + last if tensor.numel() else 0
