"""What a device has beside a model: pieces may take a part of it."""

from __future__ import annotations

import torch

from ._piece_size import device_bytes

_STATE_BYTES = 8  # of an optimizer, for each element: two moments in float32


def spare_bytes(model: torch.nn.Module, device: torch.device) -> int:
    """Bytes of the device beside the model's weights there, and beside the gradients and optimizer's states of those
    that train. May be negative.

    None of host memory: results depend on how many pieces there are, and would on the machine that they were found on.
    """
    if device.type != "cuda":
        return 0
    spare = int(device_bytes(device) * torch.cuda.get_per_process_memory_fraction(device))
    for parameter in model.parameters():
        if parameter.device == device:
            here = getattr(parameter, "_local_tensor", parameter)  # a rank's own part
            spare -= here.nbytes
            if parameter.requires_grad:
                spare -= here.nbytes + _STATE_BYTES * here.numel()
    return spare
