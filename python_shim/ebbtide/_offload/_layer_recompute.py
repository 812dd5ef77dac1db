"""The tapes that a layer's backward runs: those that forward saved, and the others made again."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch

from ._attention_call import Attend, Parts
from ._layer_forward import run_after
from ._layer_record import LayerRecord, Piece
from ._layer_saving import storage_of
from ._layer_tape import Tape
from ._layer_through import record_through
from ._pieces import Span


class Recomputation:
    """Of one call. Each tape is given out once, and nothing else holds it then."""

    def __init__(self, record: LayerRecord, x: torch.Tensor) -> None:
        self._record, self._x = record, x
        self._measured: dict[Span, int] = {}  # bytes saved by what was run again
        self._before_too: Tape | None = None  # of the run that made the after part's tape

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
        if self._record.runs_once:
            return self._through(piece, out, take)

        def run(x: torch.Tensor, out: torch.Tensor) -> tuple[torch.Tensor]:
            y, parts = run_after(self._record, piece, x, out)
            if take is not None:
                take(piece, *((parts, True) if parts else self.parts(piece)))
            return (y,)

        rows = piece.span.of(self._x, 1), piece.span.of(out, self._record.cut.out_dim)
        with self._measuring(piece, *rows):
            tape, _ = Tape.record(run, *rows)
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
        if self._before_too is not None:
            tape, self._before_too = self._before_too, None
            return tape
        self._draw_again(piece)
        rows = piece.span.of(self._x, 1)
        with self._measuring(piece, rows):
            tape, parts = Tape.record(lambda x: self._before(piece, x), rows)
        self._tell_recomputed(piece, parts)
        return tape

    def _through(
        self, piece: Piece, out: torch.Tensor, take: Callable[[Piece, Parts, bool], None] | None
    ) -> Tape:
        """Both tapes by one run: the after part's, and the before part's for before()."""
        found: list[tuple[Tape, Parts]] = []

        def attention(tape: Tape, parts: Parts, attend: Attend) -> torch.Tensor:
            found.append((tape, parts))
            if take is not None:
                take(piece, parts, False)  # the before part's tape may have saved them
            self._record.go_on(piece)
            return out

        with self._measuring(piece, self._x, out):
            tape, _ = record_through(self._record, self._x, attention)
        if piece.before is None and not self._record.tally.shares_nodes:
            self._before_too, parts = found.pop()
            self._tell_recomputed(piece, parts)
        piece.parts = []
        return tape

    def _before(self, piece: Piece, x: torch.Tensor) -> Parts:
        return self._record.cut.before(self._record.call.piece(x, piece.span))[0]

    def _draw_again(self, piece: Piece) -> None:
        if piece.begin is not None:
            self._record.random.set(piece.begin)

    @contextlib.contextmanager
    def _measuring(self, piece: Piece, *inputs: torch.Tensor) -> Iterator[None]:
        """Around what runs one part of a piece again, or both. A layer's first ones are measured."""
        if self._record.tally.rest_bytes_per_token:
            yield
            return
        recorder = self._record.recorder()
        with recorder.hooks():
            yield
        found = recorder.measure(map(storage_of, inputs))
        self._measured[piece.span] = self._measured.get(piece.span, 0) + found

    def _tell_recomputed(self, piece: Piece, parts: Parts) -> None:
        tally = self._record.tally
        if not tally.rest_bytes_per_token:
            rest = self._measured[piece.span] + sum(part.nbytes for part in parts)
            tally.rest_bytes_per_token = rest / piece.span.tokens
        tally.recomputed_bytes += round(tally.rest_bytes_per_token * piece.span.tokens)
