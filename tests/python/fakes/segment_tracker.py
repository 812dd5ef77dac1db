"""The device memory that a tracker of torch's allocator knows of, as torch's NCCL process group keeps track of it to
register it: what the snapshot lists when it is attached, and every segment taken or given back since."""

from __future__ import annotations

import ctypes
import pathlib
import subprocess

import torch

HERE = pathlib.Path(__file__).resolve().parent
_ROOM = 4096


class _Change(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int64) for name in ("device", "is_taken", "address", "size")]


def build(folder: pathlib.Path) -> pathlib.Path:
    """Compiles the tracker against the torch that is installed."""
    site = pathlib.Path(torch.__file__).parents[1]
    includes = [site / "torch/include", *site.glob("nvidia/cu*/include"), *site.glob("nvidia/cuda_runtime/include")]
    includes += [site / "triton/backends/nvidia/include", pathlib.Path("/usr/local/cuda/include")]
    library = folder / "segment_tracker.so"
    command = ["g++", "-std=c++20", "-O0", "-fPIC", "-shared", str(HERE / "segment_tracker.cpp"), "-o", str(library)]
    for include in includes:
        command += ["-isystem", str(include)]
    subprocess.run(command, check=True)
    return library


class SegmentTracker:
    """Registers nothing: keeps the ranges of bytes of one device."""

    def __init__(self, library: pathlib.Path, device: int = 0) -> None:
        self._library = ctypes.CDLL(str(library))
        self._library.take_segment_changes.restype = ctypes.c_int64
        self._device = device
        self.changes = 0
        self._library.attach_segment_tracker()
        self.ranges = snapshot_ranges(device)

    def update(self) -> None:
        """Follows what changed. AssertionError: memory was taken twice, or given back and not known."""
        changed = (_Change * _ROOM)()
        count = self._library.take_segment_changes(changed, ctypes.c_int64(_ROOM))
        assert count < _ROOM
        for change in changed[:count]:
            if change.device == self._device:
                self.changes += 1
                self._follow(change)

    def _follow(self, change: _Change) -> None:
        begin, end = change.address, change.address + change.size
        if change.is_taken:
            assert not any(low < end and begin < high for low, high in self.ranges), "memory was taken twice"
            self.ranges = merged([*self.ranges, (begin, end)])
            return
        around = [(low, high) for low, high in self.ranges if low <= begin and end <= high]
        assert len(around) == 1, "memory was given back that no tracker heard of"
        ((low, high),) = around
        self.ranges.remove((low, high))
        self.ranges = merged([*self.ranges, *(part for part in ((low, begin), (end, high)) if part[0] < part[1])])

    def total(self) -> int:
        return sum(high - low for low, high in self.ranges)

    def holds(self, tensor: torch.Tensor) -> bool:
        begin = tensor.untyped_storage().data_ptr()
        return any(low <= begin and begin + tensor.untyped_storage().nbytes() <= high for low, high in self.ranges)


def merged(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """In order, neighbours joined."""
    joined: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if joined and joined[-1][1] == low:
            joined[-1] = (joined[-1][0], high)
        else:
            joined.append((low, high))
    return joined


def snapshot_ranges(device: int) -> list[tuple[int, int]]:
    segments = [segment for segment in torch.cuda.memory_snapshot() if segment["device"] == device]
    return merged([(segment["address"], segment["address"] + segment["total_size"]) for segment in segments])
