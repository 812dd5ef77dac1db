"""The tapes that a layer's backward runs: those that forward saved, and the others made again."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ._attention_call import Parts
from ._layer_forward import run_after
from ._layer_record import LayerRecord, Piece
from ._layer_saving import storage_of
from ._layer_tape import Tape
from ._pieces import Span


class Recomputation:
    """Of one call. Each tape is given out once, and nothing else holds it then."""

    def __init__(self, record: LayerRecord, x: torch.Tensor) -> None:
        self._record, self._x = record, x
        self._measured: dict[Span, int] = {}  # bytes saved by what was run again

    def parts(self, piece: Piece) -> tuple[Parts, bool]:
        """q, k, v of a piece, and whether nobody else needs them: saved ones belong to a graph, too."""
        if piece.parts:
            return tuple(rows.get() for rows in piece.parts), False
        self._draw_again(piece)
        with torch.no_grad():
            return self._before(piece, piece.span.of(self._x, 1)), True

    def after(
        self, piece: Piece, out: torch.Tensor, take: Callable[[Piece, Parts, bool], None] | None
    ) -> Tape:
        """The after part's tape, of the piece of the input and of attention's output `out`.

        `take` gets the piece's q, k, v; a run that comes by them saves a run of its own. Of a saved tape
        `take` gets nothing while they are kept on the device: see late_parts().
        """
        if piece.after is not None:
            if take is not None and not piece.keeps_parts:
                take(piece, *self.parts(piece))
                piece.parts = []
            tape, piece.after, piece.saved_after = piece.after, None, []
            return tape
        self._draw_again(piece)

        def run(x: torch.Tensor, out: torch.Tensor) -> tuple[torch.Tensor]:
            y, parts = run_after(self._record, piece, x, out)
            if take is not None:
                take(piece, *((parts, True) if parts else self.parts(piece)))
            return (y,)

        rows = piece.span.of(self._x, 1), piece.span.of(out, self._record.cut.out_dim)
        tape = self._tape(piece, run, *rows)[0]
        piece.parts = []
        return tape

    def late_parts(self, take: Callable[[Piece, Parts, bool], None]) -> None:
        """q, k, v that are kept on the device. They become whole tensors when every after part has let go
        of what it saved: before, they would be there twice beside all of that."""
        for piece in self._record.pieces:
            if piece.keeps_parts:
                take(piece, *self.parts(piece))
                piece.parts = []

    def before(self, piece: Piece) -> Tape:
        """The before part's tape, of the piece of the input."""
        if piece.before is not None:
            tape, piece.before, piece.saved_before = piece.before, None, []
            return tape
        self._draw_again(piece)
        rows = piece.span.of(self._x, 1)
        tape, parts = self._tape(piece, lambda x: self._before(piece, x), rows)
        self._tell_recomputed(piece, parts)
        return tape

    def _before(self, piece: Piece, x: torch.Tensor) -> Parts:
        return self._record.cut.before(self._record.call.piece(x, piece.span))[0]

    def _draw_again(self, piece: Piece) -> None:
        if piece.begin is not None:
            self._record.random.set(piece.begin)

    def _tape(
        self, piece: Piece, run: Callable[..., Parts], *inputs: torch.Tensor
    ) -> tuple[Tape, Parts]:
        """Runs one part of a piece again. A layer's first one is measured."""
        if self._record.tally.rest_bytes_per_token:
            return Tape.record(run, *inputs)
        recorder = self._record.recorder()
        with recorder.hooks():
            tape, outputs = Tape.record(run, *inputs)
        found = recorder.measure(map(storage_of, inputs))
        self._measured[piece.span] = self._measured.get(piece.span, 0) + found
        return tape, outputs

    def _tell_recomputed(self, piece: Piece, parts: Parts) -> None:
        tally = self._record.tally
        if not tally.rest_bytes_per_token:
            rest = self._measured[piece.span] + sum(part.nbytes for part in parts)
            tally.rest_bytes_per_token = rest / piece.span.tokens
        tally.recomputed_bytes += round(tally.rest_bytes_per_token * piece.span.tokens)
