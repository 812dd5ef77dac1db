"""What a device has beside a model: pieces may take a part of it."""

from __future__ import annotations

import weakref

import torch

from ._piece_size import device_bytes

_STATE_BYTES = 8  # of an optimizer, for each element: two moments in float32


class Spare:
    """Of one model. As it was when a device was first asked about, so that pieces stay as they are.

    Of a copied model it is the original's. Its modules are those that it has when this is made: while a cut head
    runs, something else stands in the place of the model below it.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self._modules = [weakref.ref(module) for module in model.modules()]
        self._found: dict[torch.device, int] = {}

    def __deepcopy__(self, memo: object) -> Spare:
        return self

    def bytes_on(self, device: torch.device) -> int:
        """Bytes of the device beside the model's weights there, and beside gradients and optimizer's states of those
        that train. May be negative.

        None of host memory: results depend on how many pieces there are, and would on the machine that they were
        found on.
        """
        if device not in self._found:
            self._found[device] = self._spare_bytes(device) if device.type == "cuda" else 0
        return self._found[device]

    def gradient_bytes(self, device: torch.device) -> int:
        """Of the gradients that are there now."""
        gradients = (one.grad for one in self._parameters(device) if one.grad is not None)
        return sum(_own_part(gradient).nbytes for gradient in gradients)

    def trained_bytes(self, device: torch.device) -> int:
        """Of the weights that train: as much as all of their gradients take."""
        return sum(_own_part(one).nbytes for one in self._parameters(device) if one.requires_grad)

    def state_bytes(self, device: torch.device) -> int:
        """What an optimizer may want for the weights that train."""
        trained = (one for one in self._parameters(device) if one.requires_grad)
        return sum(_STATE_BYTES * _own_part(one).numel() for one in trained)

    def _spare_bytes(self, device: torch.device) -> int:
        spare = int(device_bytes(device) * torch.cuda.get_per_process_memory_fraction(device))
        weights = sum(_own_part(one).nbytes for one in self._parameters(device))
        return spare - weights - self.trained_bytes(device) - self.state_bytes(device)

    def _parameters(self, device: torch.device) -> list[torch.nn.Parameter]:
        modules = [module for reference in self._modules if (module := reference()) is not None]
        found = {id(one): one for module in modules for one in module._parameters.values() if one is not None}
        return [one for one in found.values() if one.device == device]


def _own_part(tensor: torch.Tensor) -> torch.Tensor:
    """Of one that is sharded: this rank's."""
    return getattr(tensor, "_local_tensor", tensor)
