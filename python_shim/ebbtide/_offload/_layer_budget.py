"""What one layer may save where, and how large its pieces are: from bytes and the model's options."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from ._layer_find import bytes_per_token, weight_bytes
from ._layer_tally import Tally
from ._options import Options
from ._pieces import Span, choose_piece, cut
from ._store import Store


class LayerBudget:
    """Of the layer with this index among `layers`. Every `x` is the layer's input."""

    def __init__(self, layer: torch.nn.Module, index: int, layers: int, options: Options) -> None:
        self._layer, self._options = layer, options
        self._index, self._layers = index, layers

    def spans(self, x: torch.Tensor) -> Sequence[Span]:
        batch, tokens, width = x.shape
        piece = self._options.mini_sequence
        if piece is None:
            row_bytes = batch * width * x.element_size()
            piece = choose_piece(tokens, weight_bytes(self._layer), row_bytes, self._estimate(x))
        return cut(tokens, piece)

    def rest_per_token(self, x: torch.Tensor, tally: Tally) -> float:
        """Bytes that a token wants to save beside input and attention's output: measured, or estimated."""
        return max(tally.rest_bytes_per_token, self._estimate(x))

    def stays(self, x: torch.Tensor, tally: Tally) -> bool:
        """Whether this and all later layers save on the device: options.hbm says how much, or keep_last."""
        options, later = self._options, self._layers - self._index
        if options.hbm is None:
            return later <= options.keep_last
        rest = options.alpha * self.rest_per_token(x, tally) * x.shape[1]
        return bool(later * (self._always(x) + rest) <= options.hbm)

    def rest_allowance(self, x: torch.Tensor, tally: Tally, store: Store) -> float:
        """Bytes that this call may swap beside what every layer must.

        The swapped layers from this one on have yet to save their inputs and attention's outputs, and
        share what the host holds beyond these. Infinite if nothing limits it.
        """
        stats = getattr(store, "stats", None)
        layers = self._layers - self._options.keep_last - self._index
        if stats is None or layers <= 0 or self.stays(x, tally):
            return math.inf
        now = stats()
        free = min(now.host_budget_bytes, now.pinned_limit_bytes) - now.live_bytes
        return max(0.0, (free - layers * self._always(x)) / layers)

    def _always(self, x: torch.Tensor) -> int:
        return x.nbytes if self._options.attention == "recompute" else 2 * x.nbytes

    def _estimate(self, x: torch.Tensor) -> int:
        return x.shape[0] * bytes_per_token(self._layer, x.element_size())
