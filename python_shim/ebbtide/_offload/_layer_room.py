"""Whether a device has room for what a layer's backward would fetch before it must."""

from __future__ import annotations

import torch

_USED = 0.9  # of the device's memory: the rest is left for fragments and for what others allocate
# Whole-length tensors that attention's backward makes beside what is there: gradients of q, k and v, and
# one of them in float32 while it is summed up.
_ATTENTION_MAKES = 6


def has_room(x: torch.Tensor, fetched_bytes: int) -> bool:
    """Whether `fetched_bytes` may lie on the device of `x`, a layer's input, during its attention's backward.

    Looks at live bytes, not at time: steps of one length get one answer. Where nothing says how much
    memory there is (the host), there is no room.
    """
    if x.device.type != "cuda":
        return False
    counts = torch.cuda.memory_stats_as_nested_dict(x.device)
    live: int = counts["allocated_bytes"]["all"]["current"]
    whole = torch.cuda.get_device_properties(x.device).total_memory
    may_use = _USED * whole * torch.cuda.get_per_process_memory_fraction(x.device)
    return live + fetched_bytes + _ATTENTION_MAKES * x.nbytes <= may_use
