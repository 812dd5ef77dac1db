"""What training steps show that a choice is made from: moments in a device's time, lengths, layers, bytes."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import torch


class Moment:
    """A point in a device's time; on the host, in its own."""

    def __init__(self, device: torch.device) -> None:
        self._seconds = time.perf_counter()
        self._event: Any = None
        if device.type == "cuda":
            self._event = torch.cuda.Event(enable_timing=True)
            self._event.record(torch.cuda.current_stream(device))

    def __deepcopy__(self, _: Any) -> Moment:
        """A copied model's steps began when the model's did. (Events of CUDA cannot be copied.)"""
        return self

    @property
    def is_known(self) -> bool:
        return self._event is None or bool(self._event.query())

    def seconds_after(self, other: Moment) -> float:
        if self._event is None:
            return self._seconds - other._seconds
        return float(other._event.elapsed_time(self._event)) / 1e3


@dataclasses.dataclass
class Begun:
    """A training forward's begin: when, for how many elements of input, at which share, and how long steps had
    waited for copies when it was known to have begun: the host is ahead of the device, and knows of no later waits."""

    moment: Moment
    elements: int
    alpha: float
    waited_ns: int | None = None


@dataclasses.dataclass(frozen=True)
class Footing:
    """Bytes that were alive when a forward began: gradients, and everything else."""

    gradients: int
    others: int

    @staticmethod
    def of(device: torch.device, gradients: int) -> Footing:
        live = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
        return Footing(gradients, live - gradients)


@dataclasses.dataclass
class LayersRun:
    """The layers that a forward ran: text alone leaves out those of a model's vision tower."""

    begun: Moment
    ended: Moment | None = None  # behind the last layer: the head hides no layer's copies
    last: int = -1  # that layer's index
    ran: int = 0

    @property
    def is_known(self) -> bool:
        return self.ended is not None and self.ended.is_known

    def layer_seconds(self) -> float:
        assert self.ended is not None
        return self.ended.seconds_after(self.begun) / self.ran
