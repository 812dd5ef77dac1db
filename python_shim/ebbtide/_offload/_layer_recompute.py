"""The tapes that a layer's backward runs: those that forward saved, and the others made again."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch

from ._attention_call import Attend, Parts
from ._layer_forward import run_after
from ._layer_products import SAMPLE
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
        self._befores: dict[Span, Tape] = {}  # of runs that made an after part's tape

    def parts(self, piece: Piece) -> tuple[Parts, bool]:
        """q, k, v of a piece, and whether nobody else needs them: saved ones belong to a graph, too."""
        if piece.parts:
            return tuple(rows.get() for rows in piece.parts), False
        self._draw_again(piece)
        with torch.no_grad():
            return self._before(piece.span, piece.span.of(self._x, 1)), True

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
        if self._record.recomputes_once:
            return self._through(piece, out, take)

        def rows(span: Span, x: torch.Tensor, out: torch.Tensor) -> tuple[torch.Tensor]:
            y, parts = run_after(self._record, piece, span, x, out)
            if take is not None and span == piece.span:
                take(piece, *((parts, True) if parts else self.parts(piece)))
            return (y,)

        def run(span: Span) -> Tape:
            inputs = span.of(self._x, 1), span.of(out, self._record.cut.out_dim)
            return Tape.record(functools.partial(rows, span), *inputs)[0]

        tape = self._again(piece, "after", run, out)
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
        if piece.span in self._befores:
            return self._befores.pop(piece.span)
        parts: Parts = ()

        def run(span: Span) -> Tape:
            nonlocal parts
            tape, parts = Tape.record(lambda x: self._before(span, x), span.of(self._x, 1))
            return tape

        tape = self._again(piece, "before", run)
        self._tell_recomputed(piece, parts)
        return tape

    def _through(
        self, piece: Piece, out: torch.Tensor, take: Callable[[Piece, Parts, bool], None] | None
    ) -> Tape:
        """Both tapes by one run: the after part's, and the before part's for before()."""
        found: tuple[Tape, Parts] | None = None

        def run(span: Span) -> Tape:
            def attention(tape: Tape, parts: Parts, attend: Attend) -> torch.Tensor:
                nonlocal found
                found = tape, parts
                if take is not None and span == piece.span:
                    take(piece, parts, False)  # the before part's tape may have saved them
                self._record.go_on(piece)
                return span.of(out, self._record.cut.out_dim)

            return record_through(self._record, span, span.of(self._x, 1), attention)[0]

        tape = self._again(piece, "after", run, out)
        assert found is not None
        if piece.before is None and not self._record.tally.shares_nodes:
            self._befores[piece.span], parts = found
            self._tell_recomputed(piece, parts)
        piece.parts = []
        return tape

    def _before(self, span: Span, x: torch.Tensor) -> Parts:
        return self._record.cut.before(self._record.call.piece(x, span))[0]

    def _draw_again(self, piece: Piece) -> None:
        if piece.begin is not None:
            self._record.random.set(piece.begin)

    def _again(self, piece: Piece, part: str, run: Callable[[Span], Tape], *inputs: torch.Tensor) -> Tape:
        """The tape of one part, run again without what nobody needs. A layer's first ones are measured: what they
        save beside the layer's input and `inputs`."""

        def draw_and_run(span: Span) -> Tape:
            self._draw_again(piece)
            return run(span)

        if self._record.tally.rest_bytes_per_token:
            sample = Span(piece.span.begin, min(piece.span.end, piece.span.begin + SAMPLE))
            return self._record.products.left_out(
                part, lambda: draw_and_run(piece.span), lambda: draw_and_run(sample)
            )
        recorder = self._record.recorder()
        with recorder.hooks():
            tape = draw_and_run(piece.span)
        found = recorder.measure(map(storage_of, (self._x, *inputs)))
        self._measured[piece.span] = self._measured.get(piece.span, 0) + found
        return tape

    def _tell_recomputed(self, piece: Piece, parts: Parts) -> None:
        tally = self._record.tally
        if not tally.rest_bytes_per_token:
            rest = self._measured[piece.span] + sum(part.nbytes for part in parts)
            tally.rest_bytes_per_token = rest / piece.span.tokens
        tally.recomputed_bytes += round(tally.rest_bytes_per_token * piece.span.tokens)
