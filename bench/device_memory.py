"""How much of the device is taken: from the simulated device's own counter, or from torch."""

from __future__ import annotations

import ctypes
import dataclasses

import torch


class SimulatedMemory:
    """The simulated device counts every byte taken from it, whoever takes it."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        library.ebbtide_dryrun_peak.restype = ctypes.c_int64
        library.ebbtide_dryrun_peak.argtypes = [ctypes.c_int]
        library.ebbtide_dryrun_reset_peak.restype = None
        library.ebbtide_dryrun_reset_peak.argtypes = [ctypes.c_int]

    name = "simulated device"

    def peak(self) -> int:
        return int(self._library.ebbtide_dryrun_peak(0))

    def reset_peak(self) -> None:
        self._library.ebbtide_dryrun_reset_peak(0)


class TorchMemory:
    """A real device has no such counter: what torch's allocator reserved, arena included.

    Kept apart from it: outside_bytes(), what the device says is taken beyond that (context,
    library workspaces, other processes).
    """

    name = "torch's reserved bytes"

    def peak(self) -> int:
        return int(torch.cuda.max_memory_reserved())

    def reset_peak(self) -> None:
        pass  # run_row.py resets torch's counters itself

    def outside_bytes(self) -> int:
        free, total = torch.cuda.mem_get_info()
        return int(total - free - torch.cuda.memory_reserved())


def simulated_library() -> ctypes.CDLL | None:
    """The stand-in that this process runs on, or None."""
    program = ctypes.CDLL(None)
    return program if hasattr(program, "ebbtide_dryrun_peak") else None


def device_memory() -> SimulatedMemory | TorchMemory:
    library = simulated_library()
    return SimulatedMemory(library) if library is not None else TorchMemory()


@dataclasses.dataclass
class Peaks:
    """Peak bytes of the whole run and since it settled. All are 0 before the first take()."""

    memory: SimulatedMemory | TorchMemory
    held: int = 0
    live: int = 0
    settled_held: int = 0
    settled_live: int = 0

    def take(self) -> None:
        """Take over what was reached since the last reset."""
        self.settled_held = self.memory.peak()
        self.settled_live = int(torch.cuda.max_memory_allocated())
        self.held = max(self.held, self.settled_held)
        self.live = max(self.live, self.settled_live)

    def reset(self) -> None:
        """What comes from here on is the settled part."""
        self.take()
        self.memory.reset_peak()
        torch.cuda.reset_peak_memory_stats()
