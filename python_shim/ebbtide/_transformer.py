"""Time and bytes of a decoder from its shapes and a device file: arithmetic, nothing is run.

For what has no program yet: where swapping begins to hide (MEMO, arXiv 2407.12117, figure 1b), and what
share of tokens to swap (section 4.1). Assumed, and no more: rooflines at the device file's shares;
causal attention costs half of the full square; tensor parallel ranks split every layer's tokens and
weights evenly (sequence parallel norms), and its collectives are not hidden; norms, residuals and the
activation each read and write once.
"""

from __future__ import annotations

import dataclasses

from ._devices import Device

_BYTES = 2  # of a bfloat16 number
_BACKWARD = 2.0  # matrix products of backward for one of forward
_ATTENTION_BACKWARD = 2.5  # products of FlashAttention's backward for those of its forward: 5 for 2


@dataclasses.dataclass(frozen=True)
class Decoder:
    """Shapes of a decoder. `is_gated`: three MLP matrices (SwiGLU) instead of two."""

    layers: int
    hidden: int
    mlp: int
    vocabulary: int
    kv_hidden: int | None = None  # width of keys and of values; None: as wide as `hidden`
    is_gated: bool = False

    @property
    def kv(self) -> int:
        return self.hidden if self.kv_hidden is None else self.kv_hidden

    def layer_weights(self) -> int:
        attention = 2 * self.hidden * self.hidden + 2 * self.hidden * self.kv
        return attention + (3 if self.is_gated else 2) * self.hidden * self.mlp

    def parameters(self) -> int:
        return self.layers * self.layer_weights() + self.vocabulary * self.hidden

    def always_bytes(self) -> int:
        """Saved for a token of a layer in any case: its input and attention's output."""
        return 2 * self.hidden * _BYTES

    def other_bytes(self) -> int:
        """The other skeletal activations of a token: 14 hidden for MEMO's GPT (figure 4)."""
        mlp = (3 if self.is_gated else 2) * self.mlp
        return (4 * self.hidden + 2 * self.kv + mlp) * _BYTES


@dataclasses.dataclass(frozen=True)
class LayerTime:
    """Seconds of one layer on one of `ranks` devices."""

    matrix: float
    attention: float
    other: float
    collectives: float
    attention_backward: float

    @property
    def forward(self) -> float:
        return self.matrix + self.attention + self.other + self.collectives

    @property
    def recompute(self) -> float:
        """All of forward but attention."""
        return self.forward - self.attention

    @property
    def backward(self) -> float:
        others = self.matrix + self.other + self.collectives
        return _BACKWARD * others + self.attention_backward


def layer_time(model: Decoder, tokens: float, device: Device, ranks: int = 1) -> LayerTime:
    """One layer of one sequence of `tokens`, in bfloat16."""
    attention_flops = 2 * tokens * tokens * model.hidden / ranks
    # Two norms and two residual sums read and write 10 hidden, the activation reads and writes the MLP's.
    moved = (10 * model.hidden + (3 if model.is_gated else 2) * model.mlp) * _BYTES * tokens / ranks
    # Two all-gathers and two reduce-scatters of the whole sequence.
    gathered = 4 * tokens * model.hidden * _BYTES * (ranks - 1) / ranks
    return LayerTime(
        matrix=2 * model.layer_weights() * tokens / ranks / device.matrix_flops(),
        attention=attention_flops / device.attention_flops(),
        other=moved / device.memory_rate(),
        collectives=gathered / device.peer_rate(),
        attention_backward=_ATTENTION_BACKWARD
        * attention_flops
        / device.attention_flops(is_backward=True),
    )


def swap_seconds(
    model: Decoder, tokens: float, device: Device, ranks: int = 1, alpha: float = 1.0
) -> float:
    """Time of one layer's copies to the host; each rank holds its share of the tokens."""
    size = (model.always_bytes() + alpha * model.other_bytes()) * tokens / ranks
    return size / device.out_rate(ranks)


def crossover(model: Decoder, device: Device, ranks: int = 1) -> float:
    """The fewest tokens at which swapping all of a layer hides behind its forward (figure 1b)."""
    low, high = 1.0, 2.0**40
    while high - low > 1:
        middle = (low + high) / 2
        hides = (
            swap_seconds(model, middle, device, ranks)
            <= layer_time(model, middle, device, ranks).forward
        )
        low, high = (low, middle) if hides else (middle, high)
    return high


def model_flops(model: Decoder, tokens: float) -> float:
    """Operations of a step without recomputation: three forwards, attention's causal half."""
    forward = 2 * model.parameters() * tokens + 2 * model.layers * tokens * tokens * model.hidden
    return 3 * forward
