"""What a training step with offload must hold on the device and on the host, from shapes alone.

Nothing here asks Ebbtide. A layer saves its input, attention's output and log-sum-exp (`always`), and
for a share alpha of its tokens what autograd saves beside them (`rest`). Peaks are the largest of a
few moments; in each moment there are the saved tensors that are on the device, those on their way,
the whole-length tensors of the work at hand, one piece's work, and the gradients there are so far.
What one piece works in, and what autograd saves for a token, was measured with an unmodified layer
(offload_bytes_run.py).
"""

from __future__ import annotations

import dataclasses

_TARGETS = 8  # bytes of a token id
_HEADS_AT_ONCE = 1 << 18  # heads x tokens in one call of attention's backward


@dataclasses.dataclass(frozen=True)
class Shapes:
    """A model of two-byte numbers; `gated`: three matrices in an MLP and rotary positions, else two and none."""

    hidden: int
    heads: int
    kv_heads: int
    mlp: int
    layers: int
    words: int
    gated: bool
    embedded: int  # states that transformers' own forward holds to its end beside the layers' inputs
    rest_per_token: float  # bytes
    piece_work: int  # bytes: peak of forward and backward of one piece in one layer
    piece: int  # tokens

    @property
    def width(self) -> int:
        return self.hidden // self.heads

    def state(self, tokens: int) -> int:
        return 2 * tokens * self.hidden

    def qkv(self, tokens: int) -> int:
        return 2 * tokens * (self.heads + 2 * self.kv_heads) * self.width

    def log_sum_exp(self, tokens: int) -> int:
        return 4 * tokens * self.heads

    def arguments(self, tokens: int) -> int:
        """Ids, labels, shifted labels, positions; the rotary tables."""
        return tokens * (4 * _TARGETS + (2 * 2 * self.width if self.gated else 0))

    @property
    def before(self) -> int:
        """Parameters of a layer before attention."""
        return self.hidden * (self.heads + 2 * self.kv_heads) * self.width

    @property
    def after(self) -> int:
        return self.hidden * self.hidden + (3 if self.gated else 2) * self.hidden * self.mlp

    @property
    def head(self) -> int:
        return self.words * self.hidden


@dataclasses.dataclass(frozen=True)
class Setting:
    tokens: int
    alpha: float
    keep_last: int
    host: int | None  # budget in bytes; None: ample


@dataclasses.dataclass(frozen=True)
class Weights:
    """Bytes, above the parameters."""

    forward: int
    backward: int
    host: int


def weights_of(shapes: Shapes, setting: Setting) -> Weights:
    step = _Step(shapes, setting)
    return Weights(
        max(max(step.forward(layer) for layer in range(shapes.layers)), step.forward_of_head()),
        max(max(step.backward(layer) for layer in range(shapes.layers)), step.backward_of_head()),
        step.on_host,
    )


class _Step:
    """Bytes at the moments of one step."""

    def __init__(self, shapes: Shapes, setting: Setting) -> None:
        self._s, self._at = shapes, setting
        tokens = setting.tokens
        self._state = shapes.state(tokens)
        self._always = 2 * self._state + shapes.log_sum_exp(tokens)
        swapped = shapes.layers - setting.keep_last
        budget = float("inf") if setting.host is None else setting.host
        wanted = setting.alpha * shapes.rest_per_token * tokens
        # What the host has no room for: of the rest it is computed again, of `always` it stays.
        self._rest = min(wanted, max(0.0, budget / swapped - self._always))
        self._kept_rest = wanted  # of the last layers
        self.on_host = int(min(swapped * (self._always + self._rest), budget))
        self._overflow = max(0.0, swapped * self._always - budget)
        self._swapped = swapped

    def _kept(self, layers: int) -> float:
        """Saved on the device, to stay, by the first `layers` layers."""
        swapped = min(layers, self._swapped)
        on_host = self._swapped * self._always - self._overflow
        overflow = max(0.0, swapped * self._always - on_host) if self._overflow else 0.0
        return overflow + (layers - swapped) * (self._always + self._kept_rest)

    def _saves(self, layer: int) -> float:
        rest = self._rest if layer < self._swapped else self._kept_rest
        return self._always + rest

    def _on_its_way(self, layer: int) -> float:
        """Of the layer before this one. With alpha 0 its copies have ended when attention begins."""
        is_swapped = 0 < layer <= self._swapped
        return self._saves(layer - 1) - self._stays(layer - 1) if is_swapped and self._at.alpha else 0

    def _stays(self, layer: int) -> float:
        """Of what this layer saves, the part that stays on the device."""
        return self._kept(layer + 1) - self._kept(layer) if layer >= 0 else 0

    def forward(self, layer: int) -> int:
        s, tokens = self._s, self._at.tokens
        # A gated model's embeddings are the first layer's input itself.
        embedded = 0 if s.gated and layer == 0 else s.embedded * self._state
        around = self._kept(layer) + self._on_its_way(layer) + embedded + s.arguments(tokens)
        rest = self._saves(layer) - self._always
        out_before = self._state if 0 < layer <= self._swapped and not self._at.alpha else 0
        before = self._state + max(0, out_before - self._stays(layer - 1))
        before += s.qkv(tokens) + 2 * s.qkv(s.piece)
        at_attention = 2 * self._state + s.log_sum_exp(tokens) + s.qkv(tokens)
        # The part of the rest that comes before attention is there by then; after it, all.
        after = 3 * self._state + s.log_sum_exp(tokens) + rest + s.piece_work / 2
        return int(around + max(before, at_attention, after))

    def forward_of_head(self) -> int:
        s = self._s
        logits = s.piece * s.words * (2 + 4 + 4)  # as they are, in float32, log-softmax
        return int(self._kept(s.layers) + self._state + s.arguments(self._at.tokens) + logits)

    def _gradients_after(self, layer: int) -> int:
        """Of the head and of the layers above this one."""
        s = self._s
        return 2 * (s.head + (s.layers - 1 - layer) * (s.before + s.after))

    def backward(self, layer: int) -> int:
        s, tokens = self._s, self._at.tokens
        around = self._kept(layer) + s.arguments(tokens) + self._gradients_after(layer)
        rest = self._kept_rest if layer >= self._swapped else 0
        whole = 4 * self._state + s.log_sum_exp(tokens)  # input, output, and the gradients of both
        heads = max(1, min(s.heads, _HEADS_AT_ONCE // tokens))
        # Some heads' gradients of q (once more in float32), k and v; output and its gradient in their order.
        kernel = tokens * heads * s.width * (4 + 3 * 2 + 2 * 2)
        if heads < s.heads // s.kv_heads:  # sums over the calls that share heads of k and v
            kernel += tokens * s.width * 2 * 4
        end_of_after = whole + s.qkv(tokens) + 4 * s.after + s.piece_work
        pieces = max(1, tokens // s.piece)
        start_of_after = whole + rest * (1 - 1 / pieces) + 4 * s.after + s.piece_work
        attention = whole + s.qkv(tokens) + 2 * s.after + kernel
        before = 2 * self._state + s.qkv(tokens) + 2 * s.after + 4 * s.before + s.piece_work
        landing = self._always if 0 < layer <= self._swapped else 0  # of the layer whose turn is next
        return int(around + max(end_of_after, start_of_after, attention, before + landing))

    def backward_of_head(self) -> int:
        s = self._s
        logits = s.piece * s.words * (2 + 4 + 4 + 4)
        states = 2 * self._state + s.arguments(self._at.tokens)
        return int(self._kept(s.layers) + states + 4 * s.head + logits)
