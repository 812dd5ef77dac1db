"""Whether a device has room: for what a layer's backward would fetch before it must, and for a larger share."""

from __future__ import annotations

import torch

from ._native_saving import saving

# As room.cpp: the rest is left for fragments. Little: what was alive at most and what a share adds are rarely there together.
_USED = 0.95


def has_room(x: torch.Tensor, fetched_bytes: int) -> bool:
    """Whether `fetched_bytes` may lie on the device of `x`, a layer's input, during its attention's backward.

    The rule is C++'s (hooks/torch_offload/room.h): live bytes, not time.
    """
    if x.device.type != "cuda":
        return False
    share = torch.cuda.get_per_process_memory_fraction(x.device)
    answer: bool = saving().has_room(x.device.index, share, x.nbytes, fetched_bytes)
    return answer


def headroom(device: torch.device) -> int | None:
    """Bytes that the device could give this process beside the most that was ever alive in it; None: nobody says.

    What other processes have is not to be had; what was alive is torch's peak, since it was last reset. The rule is C++'s (hooks/torch_offload/room.h).
    """
    if device.type != "cuda":
        return None
    free, total = torch.cuda.mem_get_info(device)
    within_reach = free + torch.cuda.memory_reserved(device)
    whole = min(within_reach, int(total * torch.cuda.get_per_process_memory_fraction(device)))
    return int(_USED * whole) - torch.cuda.max_memory_allocated(device)
