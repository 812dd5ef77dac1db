"""What one layer may save where, and how large its pieces are: from bytes and the model's options.

Note [Budgets]
options.host is the swap engine's own limit: what finds no room there stays on the device. options.hbm
limits what stays there, be it the last layers or what a full host left over. Each call looks at what
both have left and at what this layer and those after it must save. Where that is more, the first
layers do not save attention's output but run its forward again; where not even the layers' inputs
fit, the first layer says so before anything is saved. Everything else is saved within what is left
over: expected first, and measured before it is.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import torch

from .._errors import EbbtideError
from ._layer_find import bytes_per_token, weight_bytes
from ._options import REPEAT, Options, gib
from ._pieces import Span, choose_piece, cut
from ._swap_engine import ALIGNMENT

_STATISTICS = 1 / 16  # of the input's bytes: attention's log-sum-exp, until it is measured


@dataclasses.dataclass(frozen=True)
class Room:
    """Bytes that may still be saved, by all layers together. Infinite where nothing limits them."""

    host: float
    device: float


@dataclasses.dataclass(frozen=True)
class Share:
    """One call's part of the room."""

    stays: bool  # on the device, with all later layers
    repeats_attention: bool
    swapped_later: int  # later layers that do not stay
    expected: int  # bytes that it will save, input and attention's output included
    rest_allowance: float  # bytes beside input and attention's output
    rest_per_token: float  # what a token will want of it: measured, or estimated


class LayerBudget:
    """Of the layer with this index. Every `x` is the layer's input."""

    def __init__(self, layer: torch.nn.Module, index: int, options: Options) -> None:
        self._layer, self._index, self._options = layer, index, options

    def spans(self, x: torch.Tensor, spare_bytes: int) -> Sequence[Span]:
        """`spare_bytes`: what the device has beside the model."""
        batch, tokens, width = x.shape
        piece = self._options.mini_sequence
        if piece is None:
            row_bytes = batch * width * x.element_size()
            piece = choose_piece(
                tokens,
                weight_bytes(self._layer),
                row_bytes,
                self._estimate(x),
                spare_bytes,
                self._options.fewest_pieces,
            )
        return cut(tokens, piece)

    def share(
        self,
        x: torch.Tensor,
        later: int,
        room: Room,
        always_per_token: float,
        rest_per_token: float,
        kept: Sequence[bool],
        warn: Callable[[str], None],
    ) -> Share:
        """`later`: layers from this one on that have the same room. Bytes a token are measured ones, 0 where
        nothing was. `kept`: for each layer whether it keeps all it saves in this forward; empty: none does. Raises EbbtideError: see Note [Budgets]."""
        always = self._always(x, always_per_token)
        rest = max(rest_per_token, self._estimate(x))
        wanted = self.alpha(kept) * rest * x.shape[1]
        repeats = self._options.attention == REPEAT
        if later * always > room.host + room.device:
            self._give_up_attention(x, later, room, warn)
            repeats = True
        stays, staying = self._staying(always + wanted, later, room, kept)
        allowance = _left_over(always, staying if stays else later - staying, room.device if stays else room.host)
        return Share(
            stays=stays,
            repeats_attention=repeats,
            swapped_later=later - staying - (not stays),
            expected=int(always + min(wanted, allowance)),
            rest_allowance=allowance,
            rest_per_token=rest,
        )

    def alpha(self, kept: Sequence[bool]) -> float:
        """The layer's share. One that keeps what it saves keeps all."""
        return 1.0 if kept and kept[self._index] else self._options.alpha_of_layer(self._index)

    def _staying(self, each: float, later: int, room: Room, kept: Sequence[bool]) -> tuple[bool, int]:
        """Whether the layer saves on the device, and how many do from it on: those that keep all they save, if
        there are such, or as many as options.hbm holds; else the last ones, keep_last."""
        if kept:
            return kept[self._index], sum(kept[self._index :])
        last = self._options.keep_last if self._options.hbm is None else int(room.device // max(each, 1))
        return later <= last, min(later, last)

    def _give_up_attention(
        self, x: torch.Tensor, later: int, room: Room, warn: Callable[[str], None]
    ) -> None:
        options = self._options
        left = f"{gib(int(room.host))} of host memory and {gib(int(room.device))} of hbm are left"
        remedy = "raise EBBTIDE_HOST (host=) or EBBTIDE_HBM (hbm=)"
        if later * x.nbytes > room.host + room.device:
            raise EbbtideError(
                f"the inputs of {later} layers weigh {gib(later * x.nbytes)} for {x.shape[1]} tokens, "
                f"and {left}: {remedy}, or train on shorter sequences"
            )
        line = f"attention's outputs of {later} layers do not fit: {left} for {x.shape[1]} tokens"
        if options.strict and options.attention != REPEAT:
            raise EbbtideError(f'{line}; {remedy}, or allow attention="recompute"')
        if options.attention != REPEAT:
            warn(f"{line}; its forward runs twice in some layers. To save it, {remedy}")

    def _always(self, x: torch.Tensor, measured: float) -> float:
        if self._options.attention == REPEAT:
            return x.nbytes + ALIGNMENT
        return (measured * x.shape[1] or (2 + _STATISTICS) * x.nbytes) + 4 * ALIGNMENT

    def _estimate(self, x: torch.Tensor) -> int:
        return x.shape[0] * bytes_per_token(self._layer, x.element_size())


def _left_over(always: float, alike: int, free: float) -> float:
    """For this layer, of what is `free` where it saves, beyond what it and the later ones that save there must."""
    return math.inf if free == math.inf else max(0.0, (free - alike * always) / alike)
