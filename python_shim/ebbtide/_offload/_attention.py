"""Attention over the whole length, run once, its graph held without q, k, v and without its output."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from ._attention_call import Attend, FusedCall, Parts
from ._attention_choice import fused_for
from ._attention_fused import FusedAttention
from ._attention_kernel import Kernel
from ._layer_ambient import AttentionBackends, RandomStates
from ._layer_saving import AnyLanding, landing_for, recorder_for
from ._layer_tape import Tape, run_as_in_training
from ._native_saving import Externals
from ._store import KeepStore, Saved, Store

Gradients = list[torch.Tensor | None]


class SavedAttention:
    """Any attention: what its backward needs beside q, k, v and its output is in a store.

    Views of q, k, v and of the output are only noted, and put back for backward.
    """

    def __init__(self, attend: Attend, externals: Externals) -> None:
        self._attend, self._externals = attend, externals
        self._part_landings: list[AnyLanding] = []
        self._out_landing: AnyLanding | None = None
        self._tape: Tape | None = None
        self._saved: Sequence[Saved] = ()

    def forward(self, parts: Parts, store: Store) -> tuple[torch.Tensor, AnyLanding]:
        """The output, and its landing. Nothing of the parts is held afterwards."""
        self._part_landings = [landing_for(store, part) for part in parts]
        recorder = recorder_for(store, self._externals)
        with recorder.hooks():
            self._tape, (out,) = Tape.record(lambda *parts: (self._attend(*parts),), *parts)
        self._out_landing = landing_for(store, out)
        landings = [*self._part_landings, self._out_landing]
        handed = recorder.hand_over(store, landings, math.inf)
        assert handed is not None
        self._saved = handed.saved
        for landing in landings:
            landing.drop()
        return out, self._out_landing

    @property
    def saved_bytes(self) -> int:
        return sum(saved.size_bytes for saved in self._saved)

    def prefetch(self) -> None:
        for saved in self._saved:
            saved.prefetch()

    def put_back(self, parts: Parts) -> None:
        """q, k, v for backward, with the bits that forward had."""
        for landing, part in zip(self._part_landings, parts, strict=True):
            landing.put(part)

    def backward(
        self, dout: torch.Tensor, parameters: Sequence[torch.Tensor], out: torch.Tensor
    ) -> tuple[Gradients, Gradients]:
        """Gradients of q, k, v and of `parameters`. Lets go of everything."""
        assert self._tape is not None and self._out_landing is not None
        self._out_landing.put(out)
        found = self._tape.gradients([dout], parameters)
        for landing in (*self._part_landings, self._out_landing):
            landing.drop()
        for saved in self._saved:
            saved.release()
        self._saved = []
        return found


class RepeatedAttention:
    """attention="recompute": nothing is saved but the random state, and backward runs it again.

    Both times on the same kernel: which one is decided in forward, as for training (see Note [As in training]),
    and holds for backward, although what the user allows may be another by then.
    """

    saved_bytes = 0

    def __init__(self, attend: Attend, externals: Externals, random: RandomStates) -> None:
        self._attend, self._externals, self._random = attend, externals, random
        self._state = random.now()
        self._fused: tuple[FusedCall, Kernel] | None = None
        self._backends: AttentionBackends | None = None
        self._again: SavedAttention | FusedAttention | None = None

    def forward(self, parts: Parts) -> torch.Tensor:
        self._fused = fused_for(self._attend, parts)
        if self._fused is not None:
            call, kernel = self._fused
            out = kernel.forward(call, *parts).out.transpose(1, 2).contiguous()
        else:
            (out,) = run_as_in_training(lambda *parts: (self._attend(*parts),), *parts)
        self._backends = AttentionBackends()
        return out

    def repeat(self, parts: Parts) -> torch.Tensor:
        """The output again. backward() may follow."""
        self._random.set(self._state)
        self._again = (
            FusedAttention(*self._fused)
            if self._fused is not None
            else SavedAttention(self._attend, self._externals)
        )
        assert self._backends is not None
        with self._backends.again():
            out, _ = self._again.forward(parts, KeepStore())
        self._again.put_back(parts)
        return out

    def backward(
        self, dout: torch.Tensor, parameters: Sequence[torch.Tensor], out: torch.Tensor
    ) -> tuple[Gradients, Gradients]:
        """Gradients of q, k, v and of `parameters`; `out` is what repeat() returned."""
        assert self._again is not None
        again, self._again = self._again, None
        return again.backward(dout, parameters, out)


def make_attention(
    attend: Attend, parts: Parts, externals: Externals
) -> SavedAttention | FusedAttention:
    """The form that needs the least memory: torch's fused kernels where the model would use them."""
    fused = fused_for(attend, parts)
    return SavedAttention(attend, externals) if fused is None else FusedAttention(*fused)


AnyAttention = SavedAttention | FusedAttention | RepeatedAttention
