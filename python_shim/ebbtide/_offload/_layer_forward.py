"""The forward of a cut layer: before attention in pieces, attention once, after attention in pieces.

A single piece runs once, through all of it.
"""

from __future__ import annotations

import contextlib
import functools

import torch

from ._attention import RepeatedAttention, make_attention
from ._attention_call import Attend, Parts
from ._layer_products import SAMPLE, Recorded
from ._layer_record import LayerRecord, Piece, SavedRows
from ._layer_rows import Rows
from ._layer_saving import AnyRecorder
from ._layer_tape import Tape
from ._layer_through import record_through, through
from ._pieces import Span


def run_after(
    record: LayerRecord, piece: Piece, span: Span, x: torch.Tensor, out: torch.Tensor
) -> tuple[torch.Tensor, Parts | None]:
    """The after part of a piece, or of some tokens of it. Random numbers go on from `piece.begin`, or from where they
    are if that is `piece.middle`; from attention on, from `piece.middle`."""
    return record.cut.after(record.call.piece(x, span), out, lambda: record.go_on(piece))


def run_forward(record: LayerRecord, x: torch.Tensor, trains: bool = True) -> torch.Tensor:
    """The layer's output. If it `trains`, the record then has all that backward needs."""
    x = x.detach()
    if trains:
        record.save_input(x)
    with record.running():
        y = _in_one_run(record, x, trains) if record.runs_forward_once else _in_pieces(record, x, trains)
    record.forget_unused_states()
    record.x_landing.drop()
    return y


def _in_pieces(record: LayerRecord, x: torch.Tensor, trains: bool) -> torch.Tensor:
    attend, parts = _before(record, x)
    out = _attention(record, attend, parts) if trains else attend(*parts)
    del parts
    return _after(record, x, out)


def _in_one_run(record: LayerRecord, x: torch.Tensor, trains: bool) -> torch.Tensor:
    """See Note [One run]."""
    (piece,) = record.pieces
    piece.begin = record.random.now()
    if trains and record.saves(piece):
        return _saved_in_one_run(record, piece, x)

    def attention(parts: Parts, attend: Attend) -> torch.Tensor:
        out = _attention(record, attend, _whole(record, piece, parts)) if trains else attend(*parts)
        piece.middle = record.random.now()
        return out

    return through(record, x, attention)


def _whole(record: LayerRecord, piece: Piece, parts: Parts) -> Parts:
    rows = [Rows(record.cut.parts_dim, record.call.tokens) for _ in parts]
    Rows.put_all(rows, piece.span, parts)
    return tuple(row.take() for row in rows)


def _saved_in_one_run(record: LayerRecord, piece: Piece, x: torch.Tensor) -> torch.Tensor:
    recorders = record.recorder(), record.recorder()
    with contextlib.ExitStack() as hooks:

        def attention(tape: Tape, parts: Parts, attend: Attend) -> torch.Tensor:
            hooks.close()
            _keep_before(record, piece, tape, recorders[0], parts)
            out = _attention(record, attend, _whole(record, piece, parts))
            piece.middle = record.random.now()
            if record.out_landing is not None:
                record.out_landing.put(out)
            hooks.enter_context(recorders[1].hooks())
            return out

        hooks.enter_context(recorders[0].hooks())
        tape, y = record_through(record, piece.span, x, attention)
    if record.tally.shares_nodes:
        piece.let_go()
    else:
        _keep_after(record, piece, tape, recorders[1])
    if record.out_landing is not None:
        record.out_landing.drop()
    return y


def _before(record: LayerRecord, x: torch.Tensor) -> tuple[Attend, Parts]:
    rows: list[Rows] = []
    attend: Attend | None = None
    for piece in record.pieces:
        piece.begin = record.random.now()
        parts, attends = _before_piece(record, piece, piece.span.of(x, 1))
        attend = attend or attends
        if not rows:
            rows = [Rows(record.cut.parts_dim, record.call.tokens) for _ in parts]
        Rows.put_all(rows, piece.span, parts)
    assert attend is not None
    return attend, tuple(row.take() for row in rows)


def _before_piece(record: LayerRecord, piece: Piece, x: torch.Tensor) -> tuple[Parts, Attend]:
    if not record.saves(piece):
        with torch.no_grad():
            return record.cut.before(record.call.piece(x, piece.span))
    attend: list[Attend] = []

    def run(x: torch.Tensor) -> Parts:
        parts, attends = record.cut.before(record.call.piece(x, piece.span))
        attend.append(attends)
        return parts

    recorder = record.recorder()
    with recorder.hooks():
        tape, parts = Tape.record(run, x)
    _keep_before(record, piece, tape, recorder, parts)
    return parts, attend[0]


def _keep_before(
    record: LayerRecord, piece: Piece, tape: Tape, recorder: AnyRecorder, parts: Parts
) -> None:
    saved = record.hand_over(piece, recorder, parts)
    if saved is not None:
        piece.before, piece.saved_before = tape, saved


def _attention(record: LayerRecord, attend: Attend, parts: Parts) -> torch.Tensor:
    record.tally.attention_forwards += 1
    record.at_attention()
    if record.repeats_attention:
        record.attention = RepeatedAttention(attend, record.externals, record.random)
        return record.attention.forward(parts)
    saves_all = record.saves_attention or record.keeps_scores
    record.attention = make_attention(attend, parts, record.externals, record.random, saves_all)
    out, record.out_landing = record.attention.forward(parts, record.stores.inputs)
    record.out = SavedRows.of(record.stores.inputs, out)
    if not record.keeps_scores:
        record.tally.tell_always(record.always_bytes(), record.call.tokens)
    record.tally.tell_scores(record.attention.left_bytes)
    return out


def _after(record: LayerRecord, x: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    y = Rows(1, record.call.tokens)
    if record.out_landing is not None:
        record.out_landing.put(out)
    for piece in record.pieces:
        piece.middle = record.random.now()
        if piece.middle is not piece.begin:  # else random numbers are where the before part began
            record.random.set(piece.begin)
        rows = _after_piece(record, piece, piece.span.of(x, 1), piece.span.of(out, record.cut.out_dim))
        y.put(piece.span, rows)
    if record.out_landing is not None:
        record.out_landing.drop()
    return y.take()


def _after_piece(
    record: LayerRecord, piece: Piece, x: torch.Tensor, out: torch.Tensor
) -> torch.Tensor:
    if not record.saves(piece):
        return _after_unsaved(record, piece, x, out)
    recorder = record.recorder()
    with recorder.hooks():
        tape, (y,) = Tape.record(lambda x, out: (run_after(record, piece, piece.span, x, out)[0],), x, out)
    _keep_after(record, piece, tape, recorder)
    return y


def _after_unsaved(record: LayerRecord, piece: Piece, x: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    state = record.random.now()

    def rows(span: Span, x: torch.Tensor, out: torch.Tensor) -> tuple[torch.Tensor]:
        return (run_after(record, piece, span, x, out)[0],)

    def run(tokens: int) -> Recorded:
        record.random.set(state)
        span = Span(piece.span.begin, piece.span.begin + tokens)
        here = Span(0, tokens)
        return Tape.record(functools.partial(rows, span), here.of(x, 1), here.of(out, record.cut.out_dim))

    if record.x is not None:  # in training: elsewhere graphs cannot be had
        few = min(piece.span.tokens, SAMPLE)
        y = record.products.left_out_forward(lambda: run(piece.span.tokens), lambda: run(few))
        if y is not None:
            return y
        record.random.set(state)
    with torch.no_grad():
        return run_after(record, piece, piece.span, x, out)[0]


def _keep_after(record: LayerRecord, piece: Piece, tape: Tape, recorder: AnyRecorder) -> None:
    saved = record.hand_over(piece, recorder)
    if saved is not None:
        piece.after, piece.saved_after = tape, saved
