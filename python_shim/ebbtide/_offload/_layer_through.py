"""A layer's forward in one run, with its attention in the midst of it: for calls of a single piece.

Note [One run]
In one run nothing before attention is computed again for what comes after it, in forward or in backward. Both
parts still have tapes of their own: attention's output has a source, so the graph of the layer's output ends
there. What is saved of a part, where it goes and when, and every bit is as if both had run on their own.

But a layer may save a tensor in a node of both graphs (one norm in front of attention and MLP, a gate beside the
queries). The after part's backward would use it up, so such layers run their parts apart where both have
tapes; forward, where it saves neither, is one run all the same. The first pair of tapes tells.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from ._attention_call import Attend, Parts
from ._layer_record import LayerRecord
from ._layer_tape import Tape
from ._pieces import Span

Attention = Callable[[Tape, Parts, Attend], torch.Tensor]  # (before's tape, its parts, ...) -> attention's output


def through(record: LayerRecord, x: torch.Tensor, attention: Callable[[Parts, Attend], torch.Tensor]) -> torch.Tensor:
    """The layer's output, without a graph."""
    with torch.no_grad():
        return record.cut.through(record.call.piece(x, record.pieces[0].span), attention)


def record_through(
    record: LayerRecord, span: Span, x: torch.Tensor, attention: Attention
) -> tuple[Tape, torch.Tensor]:
    """The after part's tape, whose inputs are `x` and attention's output, and the layer's output. Of these tokens.

    `attention` runs without a graph; the parts that it gets have none.
    """
    recorded: list[tuple[Tape, torch.Tensor]] = []  # the before part's tape, and attention's output

    def answer(parts: Parts, attend: Attend) -> torch.Tensor:
        before = Tape([source], parts)
        with torch.no_grad():
            out = attention(before, tuple(part.detach() for part in parts), attend)
        recorded.append((before, Tape.sources(out)[0]))
        return recorded[0][1]

    with torch.enable_grad():
        (source,) = Tape.sources(x)
        y = record.cut.through(record.call.piece(source, span), answer)
        before, out = recorded.pop()
        after = Tape([source, out], [y])
    if record.tally.shares_nodes is None:
        record.tally.shares_nodes = after.shares_nodes(before)
    return after, y.detach()
