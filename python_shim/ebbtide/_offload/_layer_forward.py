"""The forward of a cut layer: before attention in pieces, attention once, after attention in pieces."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ._attention import RepeatedAttention, make_attention
from ._attention_call import Attend, Parts
from ._layer_record import LayerRecord, Piece, SavedRows
from ._layer_saving import dense_like, storage_of
from ._layer_tape import Tape
from ._pieces import Span


class Rows:
    """A whole-length tensor that is filled piece by piece; with a single piece, that piece itself."""

    def __init__(self, dim: int, tokens: int) -> None:
        self._dim, self._tokens = dim, tokens
        self.tensor: torch.Tensor | None = None

    @staticmethod
    def put_all(rows: Sequence[Rows], span: Span, parts: Parts, is_ours: bool = True) -> None:
        """The same piece of several tensors. Views of one storage (a fused projection's q, k and v) are copied:
        each whole tensor has its own, by which views of it are known (Landing)."""
        storages = [storage_of(part) for part in parts]
        for row, part, storage in zip(rows, parts, storages, strict=True):
            is_alone = storages.count(storage) == 1 and part.untyped_storage().nbytes() == part.nbytes
            row.put(span, part, is_ours and is_alone)

    def put(self, span: Span, piece: torch.Tensor, is_ours: bool = True) -> None:
        """`is_ours`: nobody else needs the piece, so that whoever takes the whole may write to it."""
        if span.tokens == self._tokens and is_ours:
            self.tensor = piece.detach()
            return
        if self.tensor is None:
            self.tensor = dense_like(piece, self._dim, self._tokens)
        span.of(self.tensor, self._dim).copy_(piece)

    def take(self) -> torch.Tensor:
        assert self.tensor is not None
        tensor, self.tensor = self.tensor, None
        return tensor


def run_after(
    record: LayerRecord, piece: Piece, x: torch.Tensor, out: torch.Tensor
) -> tuple[torch.Tensor, Parts | None]:
    """The after part of a piece. Random numbers go on from `piece.begin`, or from where they are if that
    is `piece.middle`; from attention on, from `piece.middle`."""

    def at_attention() -> None:
        if piece.middle is not piece.begin:
            record.random.set(piece.middle)

    return record.cut.after(record.call.piece(x, piece.span), out, at_attention)


def run_forward(record: LayerRecord, x: torch.Tensor, trains: bool = True) -> torch.Tensor:
    """The layer's output. If it `trains`, the record then has all that backward needs."""
    x = x.detach()
    if trains:
        record.save_input(x)
    with record.running():
        attend, parts = _before(record, x)
        out = _attention(record, attend, parts) if trains else attend(*parts)
        del parts
        y = _after(record, x, out)
    record.forget_unused_states()
    record.x_landing.drop()
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
    saved = record.hand_over(piece, recorder, parts)
    if saved is not None:
        piece.before, piece.saved_before = tape, saved
    return parts, attend[0]


def _attention(record: LayerRecord, attend: Attend, parts: Parts) -> torch.Tensor:
    record.tally.attention_forwards += 1
    record.at_attention()
    if record.repeats_attention:
        record.attention = RepeatedAttention(attend, record.externals, record.random)
        return record.attention.forward(parts)
    record.attention = make_attention(attend, parts, record.externals, record.random, record.saves_attention)
    out, record.out_landing = record.attention.forward(parts, record.stores.inputs)
    record.out = SavedRows.of(record.stores.inputs, out)
    record.tally.tell_always(record.always_bytes(), record.call.tokens)
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
        with torch.no_grad():
            return run_after(record, piece, x, out)[0]
    recorder = record.recorder()
    with recorder.hooks():
        tape, (y,) = Tape.record(lambda x, out: (run_after(record, piece, x, out)[0],), x, out)
    saved = record.hand_over(piece, recorder)
    if saved is not None:
        piece.after, piece.saved_after = tape, saved
    return y
