"""Attention over the whole length, its graph held without q, k, v and without its output.

Note [Heavy attention]
Eager attention (soft caps, sinks) saves matrices of heads x tokens x tokens: at 4K tokens 26 times what q, k, v and
the output weigh, and twice that at 8K. To make them again takes a few passes over them in device memory, which is
some fifty times as fast as the link, to copy them two over the link. So what weighs more than HEAVY times q, k, v and the
output is not saved, and attention's forward runs again in backward; its output is saved all the same, so backward
begins without it. Only layers that keep all they save on the device keep this, too, where it has room (`_keeping`):
nothing of that is copied. Below, copies may hide behind a layer's work, and what fused kernels save (statistics, k and v
repeated, copies of q) stays well below. Told by bytes at each call: a length has its own answer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from ._attention_call import Attend, FusedCall, Parts
from ._attention_choice import fused_for
from ._attention_fused import FusedAttention
from ._attention_kernel import Kernel
from ._layer_ambient import AttentionBackends, RandomStates
from ._layer_saving import AnyLanding, laid_out, landing_for, recorder_for, storage_of
from ._layer_tape import Tape, run_as_in_training
from ._native_saving import Externals
from ._store import KeepStore, Saved, Store

Gradients = list[torch.Tensor | None]
HEAVY = 4.0


class SavedAttention:
    """Any attention: what its backward needs beside q, k, v and its output is in a store.

    Views of q, k, v and of the output are only noted, and put back for backward.
    """

    runs_again = False
    left_bytes = 0  # that were not saved, since they were too many

    def __init__(self, attend: Attend, externals: Externals) -> None:
        self._attend, self._externals = attend, externals
        self._part_landings: list[AnyLanding] = []
        self._out_landing: AnyLanding | None = None
        self._tape: Tape | None = None
        self._saved: Sequence[Saved] = ()
        self._light_bytes = 0

    def forward(self, parts: Parts, store: Store) -> tuple[torch.Tensor, AnyLanding]:
        """The output, and its landing. Nothing of the parts is held afterwards."""
        out = self._forward(parts, store, math.inf)
        assert self._out_landing is not None
        return out, self._out_landing

    def _forward(self, parts: Parts, store: Store, most: float) -> torch.Tensor:
        """Saves nothing if that is more than `most` times what q, k, v and the output weigh."""
        self._part_landings = [landing_for(store, part) for part in parts]
        recorder = recorder_for(store, self._externals)
        with recorder.hooks():
            self._tape, (out,) = Tape.record(lambda *parts: (self._attend(*parts),), *parts)
        self._out_landing = landing_for(store, out)
        landings = [*self._part_landings, self._out_landing]
        self._light_bytes = sum(tensor.nbytes for tensor in (*parts, out))
        wanted = recorder.measure(map(storage_of, (*parts, out)))
        handed = None if wanted > most * self._light_bytes else recorder.hand_over(store, landings, math.inf)
        if handed is None:
            self._tape, self.left_bytes = None, wanted
        else:
            self._saved = handed.saved
        for landing in landings:
            landing.drop()
        return out

    @property
    def saved_bytes(self) -> int:
        return sum(saved.size_bytes for saved in self._saved)

    @property
    def is_heavy(self) -> bool:
        """Whether more is saved than is worth a copy. See Note [Heavy attention]."""
        return self.saved_bytes > HEAVY * self._light_bytes

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
    is_heavy = False
    runs_again = True

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


class LightAttention(SavedAttention):
    """Any attention, whose forward runs again in backward if it is heavy. See Note [Heavy attention]."""

    def __init__(self, attend: Attend, externals: Externals, random: RandomStates) -> None:
        super().__init__(attend, externals)
        self._random, self._state = random, random.now()
        self._backends: AttentionBackends | None = None
        self._strides: list[tuple[int, ...]] = []
        self._parts: Parts = ()

    def forward(self, parts: Parts, store: Store) -> tuple[torch.Tensor, AnyLanding]:
        out = self._forward(parts, store, HEAVY)
        assert self._out_landing is not None
        if self.runs_again:
            self._backends = AttentionBackends()
            self._strides = [part.stride() for part in parts]
        return out, self._out_landing

    @property
    def runs_again(self) -> bool:  # type: ignore[override]
        return self._tape is None

    def put_back(self, parts: Parts) -> None:
        if self.runs_again:
            self._parts = tuple(map(laid_out, parts, self._strides))
        else:
            super().put_back(parts)

    def backward(
        self, dout: torch.Tensor, parameters: Sequence[torch.Tensor], out: torch.Tensor
    ) -> tuple[Gradients, Gradients]:
        if not self.runs_again:
            return super().backward(dout, parameters, out)
        parts, self._parts = self._parts, ()
        again = SavedAttention(self._attend, self._externals)
        self._random.set(self._state)
        assert self._backends is not None
        with self._backends.again():
            again.forward(parts, KeepStore())
        again.put_back(parts)
        return again.backward(dout, parameters, out)


def make_attention(
    attend: Attend, parts: Parts, externals: Externals, random: RandomStates, saves_all: bool
) -> SavedAttention | FusedAttention:
    """The form that needs the least memory: torch's fused kernels where the model would use them."""
    fused = fused_for(attend, parts)
    if fused is not None:
        return FusedAttention(*fused)
    return SavedAttention(attend, externals) if saves_all else LightAttention(attend, externals, random)


AnyAttention = SavedAttention | FusedAttention | RepeatedAttention
