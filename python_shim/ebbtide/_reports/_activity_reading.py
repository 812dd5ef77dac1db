"""The records of a trace that stand beside the allocators' events: see `_activity`."""

from __future__ import annotations

import numpy as np

from ._activity import (
    NO_END,
    NO_LAYER,
    NO_LIBRARY,
    Activity,
    Copies,
    Decided,
    Foreign,
    Swaps,
    Work,
    WorkKind,
    copy_name,
)
from ._model import Device

# Actions of allocator/base/event.h.
_KERNEL, _COPY, _MEMSET, _CUDA_ALLOCATE, _CUDA_FREE, _ACTIVITY_COUNT = 19, 20, 21, 22, 23, 24
_SWAP_OUT, _SWAP_IN, _SWAP_RELEASE, _SWAP_COPIED, _PINNED, _DECISION = 25, 26, 27, 28, 29, 30
_KINDS = {_KERNEL: WorkKind.KERNEL, _COPY: WorkKind.COPY, _MEMSET: WorkKind.MEMSET}
_ON_DEVICE = (3, 5)  # CUPTI's kinds of memory: device, managed
_HOST_PINNED = 2
_MEMSET_NAME = "memset"
_UNNAMED = "kernel without a name"
_MOST = 1 << 48  # of a size, and of a length: more is a damaged file
_LATEST = 1 << 62


def is_beside(events: np.ndarray) -> np.ndarray:
    """Which of the events are no events of an allocator."""
    return (events["action"] >= _KERNEL) & (events["action"] <= _DECISION)


class _Names:
    def __init__(self) -> None:
        self.texts: list[str] = []
        self._places: dict[str, int] = {}

    def place(self, text: str) -> int:
        if text not in self._places:
            self._places[text] = len(self.texts)
            self.texts.append(text)
        return self._places[text]

    def places(self, numbers: np.ndarray, names: dict[int, str], unknown: str) -> np.ndarray:
        """Of names by their numbers in the trace."""
        different, which = np.unique(numbers, return_inverse=True)
        return np.array([self.place(names.get(int(number)) or unknown) for number in different], np.int32)[which]


def read(events: np.ndarray, owners: np.ndarray, device: Device, names: dict[int, str]) -> Activity | None:
    """Of one device; `events` are those beside its allocator's and of no device, `owners` who their thread worked for
    (a name's number). None if there is nothing but counts of nothing."""
    texts = _Names()
    counts = events[events["action"] == _ACTIVITY_COUNT]
    own = events["device"] == device.index
    mine, owners = events[own], owners[own]
    activity = Activity(
        texts.texts,
        _work(mine, names, texts),
        _foreign(mine, names, texts, device),
        _swaps(mine, owners, names, texts),
        _copies(mine),
        *_pinned(mine),
        *_pinned_by_cuda(mine),
        _decisions(mine, names),
        len(counts) > 0,
        int(np.clip(counts["bytes"], 0, _MOST).max(initial=0)),
    )
    is_told = activity.is_gpu_recorded and device.index >= 0
    return activity if is_told or activity.has_swaps else None


def _clipped(values: np.ndarray, most: int = _MOST) -> np.ndarray:
    return np.clip(values, 0, most).astype(np.int64)


def _work(events: np.ndarray, names: dict[int, str], texts: _Names) -> Work:
    found = events[np.isin(events["action"], list(_KINDS))]
    found = found[np.argsort(found["time_ns"], kind="stable")]
    is_kernel = found["action"] == _KERNEL
    place = np.zeros(len(found), np.int32)
    place[is_kernel] = texts.places(found["address"][is_kernel], names, _UNNAMED)
    for i in np.flatnonzero(found["action"] == _COPY):
        place[i] = texts.place(copy_name(int(found["detail"][i])))
    if (found["action"] == _MEMSET).any():
        place[found["action"] == _MEMSET] = texts.place(_MEMSET_NAME)
    return Work(
        np.array([_KINDS[int(action)] for action in found["action"]], np.int8),
        _clipped(found["time_ns"], _LATEST),
        np.where(is_kernel, _clipped(found["bytes"]), _clipped(found["address"])),
        np.where(is_kernel, 0, _clipped(found["bytes"])),
        found["stream"],
        place,
    )


def _foreign(events: np.ndarray, names: dict[int, str], texts: _Names, device: Device) -> Foreign:
    """Each allocation ends with the next free of its address. One in which torch took a segment is torch's."""
    found = events[np.isin(events["action"], (_CUDA_ALLOCATE, _CUDA_FREE))]
    found = found[np.lexsort((found["time_ns"], found["address"]))]
    end = np.full(len(found), NO_END, np.int64)
    same = found["address"][1:] == found["address"][:-1]
    end[:-1][same] = _clipped(found["time_ns"][1:][same], _LATEST)
    kept = (found["action"] == _CUDA_ALLOCATE) & np.isin(found["detail"], _ON_DEVICE)
    begin, size = _clipped(found["time_ns"], _LATEST), _clipped(found["bytes"])
    kept &= ~_is_of_torch(found["address"], size, begin, end, device)
    return Foreign(
        found["address"][kept],
        size[kept],
        begin[kept],
        end[kept],
        texts.places(found["stream"][kept], names, NO_LIBRARY),
    )


def _is_of_torch(address: np.ndarray, size: np.ndarray, begin: np.ndarray, end: np.ndarray, device: Device) -> np.ndarray:
    segments = device.segments
    order = np.argsort(segments.address, kind="stable")
    at, born = segments.address[order], device.times_ns[np.minimum(segments.birth[order], device.states - 1)]
    first = np.searchsorted(at, address)
    last = np.searchsorted(at, address + size.astype(np.uint64))
    return np.array(
        [bool(((born[f:l] >= b) & (born[f:l] < e)).any()) for f, l, b, e in zip(first, last, begin, end, strict=True)], bool
    )


def _swaps(events: np.ndarray, owners: np.ndarray, names: dict[int, str], texts: _Names) -> Swaps:
    is_out = events["action"] == _SWAP_OUT
    out = events[is_out]
    place = {ticket: i for i, ticket in enumerate(out["address"].tolist())}
    release, back = np.full(len(out), NO_END, np.int64), np.zeros(len(out), np.int64)
    for event in events[np.isin(events["action"], (_SWAP_IN, _SWAP_RELEASE))]:
        i = place.get(int(event["address"]))
        if i is None:
            continue
        if event["action"] == _SWAP_IN:
            back[i] += min(max(int(event["bytes"]), 0), _MOST)
        else:
            release[i] = min(int(event["time_ns"]), _LATEST)
    return Swaps(
        out["address"],
        _clipped(out["bytes"]),
        _clipped(out["time_ns"], _LATEST),
        release,
        texts.places(owners[is_out], names, NO_LAYER),
        back,
    )


def _copies(events: np.ndarray) -> Copies:
    found = events[events["action"] == _SWAP_COPIED]
    found = found[np.argsort(found["time_ns"], kind="stable")]
    return Copies(
        found["address"],
        _clipped(found["time_ns"], _LATEST),
        _clipped(found["bytes"]),
        _clipped(found["stream"]),
        found["detail"] == 1,
    )


def _pinned(events: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    found = events[events["action"] == _PINNED]
    return _clipped(found["time_ns"], _LATEST), _clipped(found["bytes"])


def _pinned_by_cuda(events: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """From when on so many bytes of host memory are pinned through CUDA, by whomever."""
    found = events[np.isin(events["action"], (_CUDA_ALLOCATE, _CUDA_FREE))]
    found = found[np.lexsort((found["time_ns"], found["address"]))]
    is_taken = (found["action"] == _CUDA_ALLOCATE) & (found["detail"] == _HOST_PINNED)
    times, size = _clipped(found["time_ns"], _LATEST), _clipped(found["bytes"])
    ended = np.flatnonzero(is_taken[:-1] & (found["address"][1:] == found["address"][:-1]))
    changes = np.concatenate([size[is_taken], -size[ended]])
    at = np.concatenate([times[is_taken], times[ended + 1]])
    order = np.lexsort((changes, at))
    return at[order], np.cumsum(changes[order])


def _decisions(events: np.ndarray, names: dict[int, str]) -> list[Decided]:
    sums: dict[str, list[int]] = {}
    for event in events[events["action"] == _DECISION]:
        of = sums.setdefault(names.get(int(event["address"])) or NO_LAYER, [0, 0, 0])
        if event["detail"] < len(of):
            of[int(event["detail"])] += min(max(int(event["bytes"]), 0), _MOST)
    return [Decided(layer, *sizes) for layer, sizes in sums.items()]
