"""Bytes that left together: on the device, on the host, or the first part there and the rest here.

Note [Lifetimes without record_stream]
A copy reads or writes a tensor's memory on a stream that torch knows nothing of. So an entry keeps
the tensor itself until the compute stream waits for that copy: from then on its memory may be used
again there, as stream order says. A tensor on its way out is let go when the second layer after it
begins (MEMO, arXiv 2407.12117, section 4.1: two rounding buffers), not whenever its copy happens to
end, so that its lifetime is the same in every iteration and a plan can count on it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .._errors import print_line
from ._store import raise_changed
from ._swap_engine import ALIGNMENT, OutOfHostMemory, SwapEngine

Key = tuple[int, int, int, torch.dtype, int]  # storage, first element, elements, their type, version

_LARGEST_ELEMENT = 16  # complex128
_SMALLEST_BYTES = 4096  # less is not worth a copy: it stays where it is


class Entry:
    """What one ticket of the engine stands for: contiguous tensors, one after the other.

    kept        sources, and no ticket
    on its way  sources and ticket
    away        ticket, and `rest` if it is split: of a single source, what did not fit on the host
    landed      ticket and landed
    """

    __slots__ = (
        "_changed", "_engine", "_is_awaited", "_landed", "_rest", "_sources", "_stream", "_versions",
        "device", "dtypes", "keys", "sizes", "starts", "ticket", "users",
    )  # fmt: skip

    def __init__(self, engine: SwapEngine, sources: Sequence[torch.Tensor], stream: int) -> None:
        """`sources` are contiguous, of one device, and used on `stream`."""
        self._engine = engine
        self._sources: Sequence[torch.Tensor] | None = sources
        self._versions = [source._version for source in sources]
        self._changed: dict[int, int] = {}  # by source: the version found instead, when it was let go
        self._rest: torch.Tensor | None = None
        self._landed: torch.Tensor | None = None
        self._stream = stream  # where the sources, or what landed, may be freed
        self._is_awaited = True  # no copy in is under way that its target must outlive
        self.device = sources[0].device
        self.dtypes = [source.dtype for source in sources]
        self.sizes = [source.nbytes for source in sources]  # in bytes, as all that follows
        self.starts: list[int] = []
        end = 0
        for size in self.sizes:
            self.starts.append(-(-end // ALIGNMENT) * ALIGNMENT)
            end = self.starts[-1] + size
        self.ticket: int | None = None
        self.keys: list[Key] = []  # under which a store finds it while it is on its way
        self.users = 0

    @property
    def is_leaving(self) -> bool:
        return self._sources is not None and self.ticket is not None

    @property
    def size(self) -> int:
        """From its first byte to its last."""
        return self.starts[-1] + self.sizes[-1]

    @property
    def rest_bytes(self) -> int:
        """Bytes of it that stay on the device."""
        if self._rest is not None:
            return self._rest.nbytes
        return sum(self.sizes) if self.ticket is None else 0

    def swap_out(self) -> bool:
        """Start on the way to the host, the first part if not all of it fits there.

        False: nothing did, or one of several did not; then nothing has changed.
        """
        assert self._sources is not None
        single = self._sources[0] if len(self._sources) == 1 else None
        asked = [(source.data_ptr(), source.nbytes) for source in self._sources]
        while asked[-1][1] >= (_SMALLEST_BYTES if single is not None else 1):
            try:
                self.ticket = self._engine.swap_out(asked, self._stream)
                break
            except OutOfHostMemory:
                if single is None:
                    return False
                room = self._engine.room(asked[0][1] - 1)
                asked = [(asked[0][0], room - room % single.element_size())]
            except RuntimeError as error:  # nothing is lost: the tensors are still here
                print_line("warning", f"{error}; the tensor stays on the device")
                return False
        if self.ticket is None:
            return False
        if single is not None and asked[0][1] < single.nbytes:
            self._rest = single.view(-1)[asked[0][1] // single.element_size() :].clone()
        return True

    def let_go(self) -> None:
        """Drop the sources; the compute stream waits until they are copied."""
        if not self.is_leaving:
            return
        assert self._sources is not None and self.ticket is not None
        for number, source in enumerate(self._sources):
            if source._version != self._versions[number]:
                self._changed[number] = source._version
        self._engine.await_out(self.ticket, self._stream)
        self._sources = None

    def prefetch(self, stream: int) -> None:
        if self._sources is not None or self._landed is not None or self.ticket is None:
            return
        try:
            self._land(stream)
        except torch.OutOfMemoryError:
            return  # it is asked for again when it is needed, with more memory free

    def _land(self, stream: int) -> None:
        assert self.ticket is not None
        # Whole elements of any type, so that it can be seen as one.
        whole = -(-self.size // _LARGEST_ELEMENT) * _LARGEST_ELEMENT
        landed = torch.empty(whole, dtype=torch.uint8, device=self.device)
        away = self.size
        if self._rest is not None:
            away -= self._rest.nbytes
            landed[away : self.size].copy_(self._rest.view(torch.uint8))
        self._engine.swap_in(self.ticket, landed.data_ptr(), away, stream)
        self._stream, self._landed, self._is_awaited = stream, landed, False

    def get(self, number: int, size: torch.Size, stride: tuple[int, ...], stream: int) -> torch.Tensor:
        """Source `number` in this shape, on the device, for work on `stream`."""
        if self._sources is not None:
            source = self._sources[number]
            if source._version != self._versions[number]:
                raise_changed("a tensor", self._versions[number], source._version)
            return source.as_strided(size, stride)
        if number in self._changed:
            raise_changed("a tensor", self._versions[number], self._changed[number])
        if self.ticket is None:
            raise RuntimeError("a saved tensor was asked for after its release")
        if self._landed is None:
            self._land(stream)
        assert self._landed is not None
        if not self._is_awaited or stream != self._stream:
            self._engine.await_in(self.ticket, stream)
            self._is_awaited = True
        typed = self._landed.view(self.dtypes[number])
        found = typed.as_strided(size, stride, self.starts[number] // typed.element_size())
        return found.data  # with a version of its own: a change of one of several is no change of all

    def release(self) -> None:
        """Forget the bytes. Memory that a copy still works on is freed behind that copy."""
        ticket, is_leaving = self.ticket, self.is_leaving
        self.ticket = None
        if ticket is not None:
            self._engine.release(ticket, self._stream, out=is_leaving, landed=not self._is_awaited)
        self._sources = self._landed = self._rest = None
