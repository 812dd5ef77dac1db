"""The most that was alive on a device in the steps of a model, whoever resets torch's peak meanwhile."""

from __future__ import annotations

import torch

from ._layer_room import headroom
from ._spare import Spare


class Peak:
    """Programs that log a step's peak reset it before each: then it is known of forward and backward alone. Looked at
    when a forward begins and when a backward ends."""

    def __init__(self, spare: Spare) -> None:
        self._spare = spare
        self._most = 0
        self._is_reset = False  # when the last forward began, torch told of less
        self._sees_backward = False

    def restart(self) -> None:
        """On another device, of which nothing is known."""
        self._most, self._is_reset, self._sees_backward = 0, False, False

    def note_begin(self, device: torch.device) -> None:
        now = most_alive(device)
        self._is_reset = now < self._most
        self._most = max(self._most, now)

    def note_backward(self, device: torch.device) -> None:
        self._sees_backward = True
        self._most = max(self._most, most_alive(device))

    def bytes(self, device: torch.device) -> int:
        """With what an optimizer makes for a moment, where that could not be seen."""
        unseen = self._spare.trained_bytes(device) if self._is_reset else 0
        return max(self._most, most_alive(device)) + unseen

    def headroom(self, device: torch.device) -> int | None:
        """Bytes that the device could give this process beside it; None: nobody says, or it is not known."""
        room = headroom(device)
        if room is None or (self._is_reset and not self._sees_backward):
            return None
        return room + most_alive(device) - self.bytes(device)


def most_alive(device: torch.device) -> int:
    """Bytes, since the program last reset torch's peak."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
