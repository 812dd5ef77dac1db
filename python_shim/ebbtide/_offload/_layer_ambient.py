"""What the runs of a layer's pieces must find around them: random numbers, autocast, kernels, parameters.

Note [Stand-ins of parameters]
Pieces run on detached aliases of the layer's trainable parameters. Gradients of a piece then end at
the aliases: hooks that users and DDP put on a parameter see one gradient, the sum, which the layer's
autograd function returns. Storage and version counter are shared.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel


def generator_of(device: torch.device) -> torch.Generator:
    """The default generator of a device."""
    if device.type == "cpu":
        return torch.default_generator
    module = torch.get_device_module(device)
    index = device.index if device.index is not None else module.current_device()
    return module.default_generators[index]


class RandomStates:
    """Moments of one device's generator. Equal moments in a row are one and the same object."""

    def __init__(self, device: torch.device) -> None:
        self._generator = generator_of(device)
        self._last: torch.Tensor | None = None

    def now(self) -> torch.Tensor:
        state = self._generator.get_state()
        if self._last is None or not torch.equal(state, self._last):
            self._last = state
        return self._last

    def set(self, state: torch.Tensor) -> None:
        """Go on from a moment that now() returned."""
        self._generator.set_state(state)

    @contextlib.contextmanager
    def undisturbed(self) -> Iterator[None]:
        """After the block random numbers go on as if nothing had been drawn in it."""
        state = self._generator.get_state()
        try:
            yield
        finally:
            self._generator.set_state(state)


class Autocast:
    """Autocast as it was when this was made."""

    def __init__(self, device: torch.device) -> None:
        self._kind = device.type
        self._enabled = torch.is_autocast_enabled(self._kind)
        self._dtype = torch.get_autocast_dtype(self._kind)

    def again(self) -> torch.autocast:
        # Casts are not remembered: those of stand-ins would never be found again, only held.
        return torch.autocast(self._kind, self._dtype, self._enabled, cache_enabled=False)


class AttentionBackends:
    """Which of torch's attention kernels were allowed when this was made, and which preferred to others.

    To be made after what is to run alike: with its first attention torch sets the order that suits the device.
    """

    def __init__(self) -> None:
        cuda = torch.backends.cuda
        allowed = {
            SDPBackend.CUDNN_ATTENTION: cuda.cudnn_sdp_enabled(),
            SDPBackend.FLASH_ATTENTION: cuda.flash_sdp_enabled(),
            SDPBackend.EFFICIENT_ATTENTION: cuda.mem_efficient_sdp_enabled(),
            SDPBackend.MATH: cuda.math_sdp_enabled(),
            SDPBackend.OVERRIDEABLE: True,  # of other devices; torch tells nobody
        }
        order = map(SDPBackend, torch._C._get_sdp_priority_order())
        self._allowed = [backend for backend in order if allowed[backend]]

    def again(self) -> contextlib.AbstractContextManager[object]:
        return sdpa_kernel(self._allowed, set_priority=True)


class Parameters:
    """The trainable parameters of one layer at the time of a call, and their stand-ins."""

    def __init__(self, layer: torch.nn.Module) -> None:
        self._layer = layer
        self._places: list[tuple[dict[str, torch.Tensor | None], str, int]] = []
        self.originals: list[torch.Tensor] = []
        index_of: dict[int, int] = {}
        for module in layer.modules():
            for name, parameter in module._parameters.items():
                if parameter is not None and parameter.requires_grad:
                    if id(parameter) not in index_of:
                        index_of[id(parameter)] = len(self.originals)
                        self.originals.append(parameter)
                    self._places.append((module._parameters, name, index_of[id(parameter)]))
        self.stand_ins = [parameter.detach().requires_grad_() for parameter in self.originals]
        self._versions = [parameter._version for parameter in self.originals]

    @contextlib.contextmanager
    def stood_in(self) -> Iterator[None]:
        """The layer runs on the stand-ins, and without checkpointing of its own, in the block."""
        layer = self._layer.__dict__
        checkpointing = layer.get("gradient_checkpointing")
        outer = [place[name] for place, name, _ in self._places]
        try:
            if checkpointing:
                layer["gradient_checkpointing"] = False
            for place, name, index in self._places:
                place[name] = self.stand_ins[index]
            yield
        finally:
            for (place, name, _), parameter in zip(self._places, outer, strict=True):
                place[name] = parameter
            if checkpointing:
                layer["gradient_checkpointing"] = checkpointing

    def check(self) -> None:
        """Raises RuntimeError if a parameter was changed in place since the call."""
        for parameter, version in zip(self.originals, self._versions, strict=True):
            if parameter._version != version:
                raise RuntimeError(
                    "a parameter was changed in place between the forward and the backward pass of an "
                    "offloaded layer, which needs its old values: step the optimizer after backward"
                )
