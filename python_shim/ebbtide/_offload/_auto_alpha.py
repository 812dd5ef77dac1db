"""alpha chosen from what two training steps show: MEMO's closed form (arXiv 2407.12117, 4.1).

The largest share for which one layer's copies hide behind one layer's forward, and for which all of
them fit the host budget:

    always + alpha * rest <= bandwidth * time of one layer's forward
    layers * (always + alpha * rest) <= host budget

`always` are a layer's input and attention's output, `rest` is what is computed again while alpha is
0. Nothing here waits for the device: times that are not known yet are asked for at the next step.
"""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from ._offloaded import Offloaded

_STEPS = 2  # the first one also measures what is loaded and compiled
_STEP_OF_ALPHA = 64  # alpha is a multiple of 1/64, so that it does not follow noise


def largest_alpha(
    always: float, rest: float, layers: int, bytes_per_layer_time: float, host_bytes: float
) -> float:
    """Bytes of one layer, the layers that are swapped, and both limits. Between 0 and 1."""
    if rest <= 0 or layers <= 0:
        return 0.0
    share = (min(bytes_per_layer_time, host_bytes / layers) - always) / rest
    return int(min(max(share, 0.0), 1.0) * _STEP_OF_ALPHA) / _STEP_OF_ALPHA


class _Moment:
    """A point in a device's time; on the host, in its own."""

    def __init__(self, device: torch.device) -> None:
        self._seconds = time.perf_counter()
        self._event: Any = None
        if device.type == "cuda":
            self._event = torch.cuda.Event(enable_timing=True)
            self._event.record()

    @property
    def is_known(self) -> bool:
        return self._event is None or bool(self._event.query())

    def seconds_after(self, other: _Moment) -> float:
        if self._event is None:
            return self._seconds - other._seconds
        return float(other._event.elapsed_time(self._event)) / 1e3


class AutoAlpha:
    """Watches a model's training forwards, sets alpha once, and is gone."""

    def __init__(self, offloaded: Offloaded) -> None:
        self._offloaded = offloaded
        self._device = next(offloaded.root.parameters()).device
        self._steps = 0
        self._begun: _Moment | None = None
        self._ended: _Moment | None = None
        self._hooks: list[Any] = []

    def install(self) -> None:
        root = self._offloaded.root
        self._hooks = [root.register_forward_pre_hook(self._begin), root.register_forward_hook(self._end)]

    def undo(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def _begin(self, module: torch.nn.Module, *_: Any) -> None:
        if not (module.training and torch.is_grad_enabled()):
            return
        if self._steps >= _STEPS and self._ended is not None and self._ended.is_known:
            self._choose()
            return
        self._begun = _Moment(self._device)

    def _end(self, module: torch.nn.Module, *_: Any) -> None:
        if module.training and torch.is_grad_enabled() and self._begun is not None:
            self._ended = _Moment(self._device)
            self._steps += 1

    def _choose(self) -> None:
        self.undo()
        offloaded = self._offloaded
        assert offloaded.layers is not None and self._begun is not None and self._ended is not None
        stats = getattr(offloaded.store, "stats", lambda: None)()
        tallies = offloaded.layers.counts()
        swapped = [tally for tally in tallies if tally.calls and tally.swapped_bytes]
        if stats is None or not swapped or stats.copying_out_ns <= 0:
            return
        layer_time = self._ended.seconds_after(self._begun) / len(tallies)
        alpha = largest_alpha(
            always=max(tally.swapped_bytes / tally.calls for tally in swapped),
            rest=max(tally.recomputed_bytes / tally.calls for tally in swapped),
            layers=len(swapped),
            bytes_per_layer_time=stats.swapped_out_bytes / (stats.copying_out_ns / 1e9) * layer_time,
            host_bytes=stats.host_budget_bytes,
        )
        if alpha:
            offloaded.wrap_layers(dataclasses.replace(offloaded.options, alpha=alpha))
