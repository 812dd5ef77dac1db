"""The backward of a cut layer: after attention in pieces, attention, before attention in pieces."""

from __future__ import annotations

import torch

from ._attention import RepeatedAttention
from ._attention_call import Parts
from ._attention_fused import FusedAttention
from ._gradient_sums import GradientSums
from ._layer_recompute import Recomputation
from ._layer_record import LayerRecord, Piece, Returning
from ._layer_room import has_room
from ._layer_rows import Rows
from ._layer_saving import storage_of

Gradients = list[torch.Tensor | None]


def run_backward(
    record: LayerRecord, dy: torch.Tensor, overwrites: bool
) -> tuple[torch.Tensor, Gradients]:
    """Gradients of the layer's input and of its trainable parameters, in the latter's order.

    With `overwrites`, nobody else needs `dy`, and the input's gradient takes its memory.
    """
    _check(record)
    with record.random.undisturbed(), record.running():
        found = _Backward(record).run(dy, overwrites)
    record.let_go()
    if record.peak is not None:
        record.peak.note_backward(dy.device)
    return found


def _check(record: LayerRecord) -> None:
    if record.used:
        raise RuntimeError(
            "backward through an offloaded layer a second time (retain_graph=True): its saved tensors "
            "are gone after the first. Add the losses and call backward once, or turn the offload off "
            "with ebbtide.offload(model, off=True)"
        )
    record.used = True
    record.parameters.check()
    for witness in record.witnesses:
        witness.check()


class _Backward:
    """One backward on its way. Each step lets go of what no later one needs."""

    def __init__(self, record: LayerRecord) -> None:
        self._record = record
        self._stand_ins = record.parameters.stand_ins
        self._x = record.land_x()
        self._again = Recomputation(record, self._x)
        self._parts: list[Rows] = []  # q, k, v

    def run(self, dy: torch.Tensor, overwrites: bool) -> tuple[torch.Tensor, Gradients]:
        record = self._record
        self._fetch_beside()
        out = self._land_out()
        dx = dy if overwrites and dy.dtype == self._x.dtype else torch.empty_like(self._x)
        dout, after = self._after(dy, dx, out)
        del dy
        if not record.repeats_attention:
            record.attention.put_back(self._take_parts())
        previous = self._previous()
        if previous is None or not self._fetches_early(previous):
            record.prefetch_before()
        if record.runs_attention_again:
            record.tally.attention_forwards += 1
        dparts, attention = record.attention.backward(dout, self._stand_ins, out)
        del out, dout
        record.drop_out()
        # Here, too. Attention's output and its gradient are gone: half of their room is enough.
        record.prefetch_before(room=self._x.nbytes)
        if previous is not None:
            previous.prefetch()  # nothing happens where it has come back already
        del previous
        before = self._before(dx, dparts)
        record.drop_x()
        return dx, [_sum(gradients) for gradients in zip(after, attention, before, strict=True)]

    def _land_out(self) -> torch.Tensor:
        """Attention's output: what was saved, or, from q, k, v of all pieces, once more."""
        record = self._record
        if not isinstance(record.attention, RepeatedAttention):
            record.attention.prefetch()
            return record.land_out()
        for piece in record.pieces:
            self._put(piece, *self._again.parts(piece))
        record.tally.attention_forwards += 1
        return record.attention.repeat(self._take_parts())

    def _previous(self) -> Returning | None:
        """The layer before begins its backward when this one ends.

        Its input and attention's output land when this layer's attention is through: before, they would
        be part of the peak. But a slow link cannot bring them while the before parts run alone: where
        there is room, they may come early.
        """
        previous = self._record.previous
        record = previous() if previous is not None else None
        return None if record is None or record.used else record

    def _fetch_beside(self) -> None:
        """Where nothing of this layer is to come back, the link is free for all that the layer before needs."""
        record, previous = self._record, self._previous()
        if record.stays and record.fetches_early and previous is not None and has_room(self._x, previous.all_bytes()):
            previous.prefetch_all()

    def _pieces_ahead(self) -> int:
        """Saved after parts that are on their way back while a piece runs: two, where there is room. Of two in a row
        the second one's copy takes longer than the first one's work."""
        record = self._record
        return 1 + (record.fetches_early and has_room(self._x, 2 * record.after_bytes()))

    def _fetches_early(self, previous: Returning) -> bool:
        """What the layer before begins with, if there is room. In front of it what this layer needs meanwhile: half
        as much, or it would come behind all of that."""
        record, fetched = self._record, previous.first_bytes()
        if not record.fetches_early or not has_room(self._x, record.before_bytes(fetched // 2) + fetched):
            return False
        record.prefetch_before(room=fetched // 2)
        previous.prefetch()
        return True

    def _after(
        self, dy: torch.Tensor, dx: torch.Tensor, out: torch.Tensor
    ) -> tuple[torch.Tensor, Gradients]:
        """The after parts' gradients of attention's output and of parameters; that of x goes to `dx`."""
        record = self._record
        dout: torch.Tensor | None = None
        sums = GradientSums(self._stand_ins, len(record.pieces))
        take = None if record.repeats_attention else self._put
        ahead = self._pieces_ahead()
        for done, piece in enumerate(record.pieces, 1):
            record.prefetch_after(done, ahead)
            tape = self._again.after(piece, out, take)
            inputs, parameters = tape.gradients([piece.span.of(dy, 1)], self._stand_ins)
            _fill(piece.span.of(dx, 1), inputs[0])
            rows = inputs[1]
            if dout is None:
                dout = rows if rows is not None and _is_whole(rows, out, (dy, dx)) else torch.empty_like(out)
            if dout is not rows:
                _fill(piece.span.of(dout, record.cut.out_dim), rows)
            sums.add(parameters)
            del tape, inputs, rows, parameters  # or they would be there beside those of the next piece
        if take is not None:
            self._again.late_parts(take)
        assert dout is not None
        return dout, sums.take()

    def _before(self, dx: torch.Tensor, dparts: Gradients) -> Gradients:
        """The before parts' gradients of parameters; those of x are added to `dx`."""
        dim = self._record.cut.parts_dim
        sums = GradientSums(self._stand_ins, len(self._record.pieces))
        for done, piece in enumerate(self._record.pieces, 1):
            self._record.prefetch_before(done)
            tape = self._again.before(piece)
            rows = [None if whole is None else piece.span.of(whole, dim) for whole in dparts]
            inputs, parameters = tape.gradients(rows, self._stand_ins)
            if inputs[0] is not None:
                piece.span.of(dx, 1).add_(inputs[0])
            sums.add(parameters)
            del tape, inputs, parameters
        return sums.take()

    def _put(self, piece: Piece, parts: Parts, is_ours: bool) -> None:
        """Rows of q, k, v. `is_ours`: attention's backward may write over them."""
        record = self._record
        if not self._parts:
            dim, tokens = record.cut.parts_dim, record.call.tokens
            self._parts = [Rows(dim, tokens) for _ in parts]
        if len(record.pieces) == 1 and isinstance(record.attention, FusedAttention):
            is_ours = is_ours or not record.attention.writes_over(parts)
        with torch.no_grad():
            Rows.put_all(self._parts, piece.span, parts, is_ours)

    def _take_parts(self) -> Parts:
        rows, self._parts = self._parts, []
        return tuple(row.take() for row in rows)


def _is_whole(rows: torch.Tensor, like: torch.Tensor, others: tuple[torch.Tensor, ...]) -> bool:
    """Whether these rows may be a whole tensor as they are: nobody writes over it, but the others are written over."""
    is_alike = (rows.shape, rows.dtype, rows.stride()) == (like.shape, like.dtype, like.stride())
    return is_alike and storage_of(rows) not in map(storage_of, others)


def _fill(place: torch.Tensor, rows: torch.Tensor | None) -> None:
    if rows is None:
        place.zero_()
    else:
        place.copy_(rows)


def _sum(gradients: tuple[torch.Tensor | None, ...]) -> torch.Tensor | None:
    """One parameter's gradients from the three parts. Most take part in one."""
    found = [gradient for gradient in gradients if gradient is not None]
    return sum(found[1:], found[0]) if found else None
