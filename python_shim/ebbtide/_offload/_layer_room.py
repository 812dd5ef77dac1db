"""Whether a device has room: for what a layer's backward would fetch before it must, and for a larger share."""

from __future__ import annotations

import torch

from ._native_saving import saving


def has_room(x: torch.Tensor, fetched_bytes: int) -> bool:
    """Whether `fetched_bytes` may lie on the device of `x`, a layer's input, during its attention's backward."""
    return has_room_on(x.device, x.nbytes, fetched_bytes)


def has_room_on(device: torch.device, input_bytes: int, fetched_bytes: int) -> bool:
    """The same for a layer's input of so many bytes.

    The rule is C++'s (hooks/torch_offload/room.h): live bytes, not time.
    """
    if device.type != "cuda":
        return False
    share = torch.cuda.get_per_process_memory_fraction(device)
    answer: bool = saving().has_room(device.index, share, input_bytes, fetched_bytes)
    return answer


def headroom(device: torch.device) -> int | None:
    """Bytes that the device could give this process beside the most that was alive in it; None: nobody says.

    The rule is C++'s, too. What was alive is torch's peak, since it was last reset.
    """
    if device.type != "cuda":
        return None
    share = torch.cuda.get_per_process_memory_fraction(device)
    found: int | None = saving().headroom(device.index, share)
    return found
