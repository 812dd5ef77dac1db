"""What one call of a cut layer leaves behind for its backward."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import torch

from ._attention import AnyAttention
from ._attention_call import Parts
from ._cut import Cut
from ._layer_ambient import Autocast, Parameters, RandomStates
from ._layer_arguments import LayerCall
from ._layer_products import UnneededProducts
from ._layer_saving import AnyLanding, AnyRecorder, dense_like, landing_for, occupied, recorder_for, span_of
from ._layer_tally import Tally
from ._layer_tape import Tape
from ._native_saving import Externals
from ._peak import Peak
from ._pieces import Policy, Span
from ._store import Saved, Store, Witness


@dataclasses.dataclass
class SavedRows:
    """A dense tensor in a store, with its strides."""

    saved: Saved
    shape: tuple[torch.Size, tuple[int, ...]] | None  # size and strides; None: the store knows them

    @staticmethod
    def of(store: Store, tensor: torch.Tensor) -> SavedRows:
        return SavedRows.all_of(store, [tensor])[0]

    @staticmethod
    def all_of(store: Store, tensors: Sequence[torch.Tensor]) -> list[SavedRows]:
        """Of tensors that are needed together."""
        dense = [
            one
            if span_of(one) <= one.numel()
            else dense_like(one, 0, one.shape[0]).copy_(one)
            for one in tensors
        ]
        if store.is_native:
            return [SavedRows(saved, None) for saved in store.save_all(dense)]
        flat = [one.detach().as_strided((span_of(one),), (1,)) for one in dense]
        shapes = [(one.size(), one.stride()) for one in dense]
        return list(map(SavedRows, store.save_all(flat), shapes))

    def get(self) -> torch.Tensor:
        tensor = self.saved.get()
        return tensor if self.shape is None else tensor.as_strided(*self.shape)


@dataclasses.dataclass
class Piece:
    """One piece of one call. A part that has no tape is recomputed in backward."""

    span: Span
    policy: Policy
    begin: torch.Tensor | None = None  # random state before the run
    middle: torch.Tensor | None = None  # random state at which its after part goes on
    before: Tape | None = None
    after: Tape | None = None
    parts: list[SavedRows] = dataclasses.field(default_factory=list)
    saved_before: Sequence[Saved] = ()
    saved_after: Sequence[Saved] = ()

    @property
    def keeps_parts(self) -> bool:
        """Whether its q, k, v are saved, and all of them on the device."""
        return bool(self.parts) and not any(rows.saved.swapped_bytes for rows in self.parts)

    def let_go(self) -> None:
        """Of all that was saved. The piece is recomputed."""
        self.before = self.after = None
        self.parts, self.saved_before, self.saved_after = [], (), ()

    def prefetch_before(self) -> None:
        for saved in self.saved_before:
            saved.prefetch()

    def before_bytes(self) -> int:
        return sum(saved.size_bytes for saved in self.saved_before)

    def prefetch_after(self) -> None:
        for saved in self._saved_after():
            saved.prefetch()

    def after_bytes(self) -> int:
        return sum(saved.size_bytes for saved in self._saved_after())

    def _saved_after(self) -> Sequence[Saved]:
        return [*self.saved_after, *(rows.saved for rows in self.parts)]


@dataclasses.dataclass
class Stores:
    """Where one call saves. `inputs`: the layer's input, attention's output and its statistics."""

    inputs: Store
    kept: Store
    swapped: Store

    def of(self, policy: Policy) -> Store:
        return self.kept if policy is Policy.KEEP else self.swapped


class Returning(Protocol):
    """A call whose backward comes next: what it begins with may come back early."""

    @property
    def used(self) -> bool:
        """Whether its backward has begun."""

    def prefetch(self) -> None:
        """Ask for it."""

    def first_bytes(self) -> int:
        """Bytes that `prefetch` asks for."""

    def prefetch_all(self) -> None:
        """Ask for all that its backward needs, in the order in which it does."""

    def all_bytes(self) -> int:
        """Bytes that `prefetch_all` asks for."""


class LayerRecord:
    """State of one call between forward and backward. Owned by its autograd node alone."""

    def __init__(
        self,
        cut: Cut,
        call: LayerCall,
        x: torch.Tensor,
        parameters: Parameters,
        pieces: Sequence[Piece],
        stores: Stores,
        tally: Tally,
        externals: Externals,
        repeats_attention: bool,
        saves_attention: bool,
        keeps_scores: bool,
        fetches_early: bool,
        rest_allowance: float,
        rest_per_token: float,
        at_attention: Callable[[], None],
        products: UnneededProducts,
    ) -> None:
        device = x.device
        self.cut, self.call, self.parameters = cut, call, parameters
        self.pieces, self.stores, self.tally = pieces, stores, tally
        self.externals, self.repeats_attention = externals, repeats_attention
        self.saves_attention = saves_attention  # all that its backward needs, however much that is
        self.keeps_scores = keeps_scores  # the same, since there is room in this forward
        self.fetches_early = fetches_early  # the layer before gets its input back as soon as there is room
        self.autocast = Autocast(device)
        self.random = RandomStates(device)
        self.witnesses: list[Witness] = []
        self.x: SavedRows | None = None
        self.out: SavedRows | None = None
        self.x_landing = landing_for(stores.inputs, x)
        self.out_landing: AnyLanding | None = None
        self.attention: AnyAttention | None = None
        self.rest_allowance = rest_allowance  # bytes that pieces may still swap
        self.rest_per_token = rest_per_token  # bytes that a token of a piece will want to
        self.at_attention = at_attention
        self.products = products
        self.keeps_before = False  # in backward, what all before parts save: there is room
        self.used = False
        self.previous: weakref.ref[Returning] | None = None  # the layer whose backward comes next
        self.peak: Peak | None = None  # of the first layer, with which a backward ends

    @property
    def stays(self) -> bool:
        """Whether all that it saves is on the device."""
        return self.stores.inputs is self.stores.kept

    @property
    def runs_attention_again(self) -> bool:
        """In backward, behind the after parts, with its output saved. Not what repeats_attention says."""
        return self.attention is not None and self.attention.runs_again and not self.repeats_attention

    def save_input(self, x: torch.Tensor) -> None:
        """`x` and the other arguments may not be changed in place from now on."""
        self.x = SavedRows.of(self.stores.inputs, x)
        self.witnesses = [Witness(x, "the input of a layer")]
        self.witnesses += [Witness(one, "an argument of a layer") for one in self.call.tensors()]

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Around every run of the layer's pieces, in forward and in backward."""
        with self.parameters.stood_in(), self.autocast.again():
            yield

    @property
    def runs_once(self) -> bool:
        """Whether the layer's parts are one run: see Note [One run]."""
        return len(self.pieces) == 1 and not self.tally.shares_nodes

    @property
    def runs_forward_once(self) -> bool:
        """The same of forward: without tapes no node is used up."""
        return self.runs_once or (len(self.pieces) == 1 and not self.saves(self.pieces[0]))

    @property
    def recomputes_once(self) -> bool:
        """Whether a piece's parts run again as one, and the before part's graph waits for its backward."""
        return self.runs_once or (self.keeps_before and not self.tally.shares_nodes)

    def saves(self, piece: Piece) -> bool:
        """Whether a run of this piece is to be saved. What would not fit on the host is recomputed."""
        if piece.policy is Policy.SWAP:
            return self.rest_allowance >= self.rest_per_token * piece.span.tokens
        return piece.policy is Policy.KEEP

    def recorder(self) -> AnyRecorder:
        """For one run of a part of a piece."""
        return recorder_for(self.stores.inputs, self.externals)

    def always_bytes(self) -> int:
        """What is saved whatever becomes of the pieces: input, attention's output and statistics."""
        assert self.x is not None and self.out is not None and self.attention is not None
        return (
            self.x.saved.size_bytes + self.out.saved.size_bytes + self.attention.saved_bytes
        )

    def hand_over(
        self, piece: Piece, recorder: AnyRecorder, parts: Parts = ()
    ) -> Sequence[Saved] | None:
        """Save what a run of this piece recorded, and `parts`. None, and nothing is saved, if that is more
        than may be: it may be more than was expected of it."""
        store = self.stores.of(piece.policy)
        landings = [self.x_landing] + ([self.out_landing] if self.out_landing is not None else [])
        of_parts = sum(occupied(part.nbytes) for part in parts)
        handed = recorder.hand_over(store, landings, self.rest_allowance - of_parts)
        if handed is None:
            return None
        if parts:
            piece.parts = SavedRows.all_of(store, parts)
        self.rest_allowance -= handed.occupied_bytes + of_parts
        return handed.saved

    def go_on(self, piece: Piece) -> None:
        """With the random numbers that the piece drew from attention on."""
        if piece.middle is not None and piece.middle is not piece.begin:
            self.random.set(piece.middle)

    def forget_unused_states(self) -> None:
        """Forward has run. If it drew no random numbers, backward has none to draw again."""
        if self.random.now() is self.pieces[0].begin:
            for piece in self.pieces:
                piece.begin = piece.middle = None

    def land_x(self) -> torch.Tensor:
        assert self.x is not None
        x = self.x.get()
        self.x_landing.put(x)
        return x

    def drop_x(self) -> None:
        assert self.x is not None
        self.x_landing.drop()
        self.x.saved.release()

    def land_out(self) -> torch.Tensor:
        """Attention's output. Not if attention is recomputed."""
        assert self.out is not None and self.out_landing is not None
        out = self.out.get()
        self.out_landing.put(out)
        return out

    def let_go(self) -> None:
        """Backward has run. Who keeps the loss keeps this record, but no mask nor what else the layer was called with."""
        self.attention, self.witnesses = None, []
        self.call.let_go()

    def drop_out(self) -> None:
        if self.out is not None and self.out_landing is not None:
            self.out_landing.drop()
            self.out.saved.release()

    def prefetch(self) -> None:
        """Ask for what the after parts' backward begins with, and attention's behind it."""
        for rows in (self.out, self.x):
            if rows is not None:
                rows.saved.prefetch()
        self.prefetch_after()
        if not self.repeats_attention:
            self.attention.prefetch()

    def first_bytes(self) -> int:
        """Bytes that `prefetch` asks for."""
        rows = [rows.saved.size_bytes for rows in (self.out, self.x) if rows is not None]
        return sum(rows) + self.after_bytes()

    def prefetch_all(self) -> None:
        self.prefetch()
        self.prefetch_after(ahead=len(self.pieces))
        for piece in self.pieces:
            piece.prefetch_before()

    def all_bytes(self) -> int:
        of_pieces = sum(piece.after_bytes() + piece.before_bytes() for piece in self.pieces)
        return self.first_bytes() - self.after_bytes() + of_pieces

    def prefetch_before(self, done: int = 0, room: int = 0) -> None:
        """Ask for what the next saved before part needs, behind the first `done` pieces; and for those
        after it that all together weigh at most `room` bytes."""
        for piece in self._next_before(done, room):
            piece.prefetch_before()

    def before_bytes(self, room: int) -> int:
        """Bytes that `prefetch_before` asks for."""
        return sum(piece.before_bytes() for piece in self._next_before(0, room))

    def _next_before(self, done: int, room: int) -> Iterator[Piece]:
        for piece in self.pieces[done:]:
            if piece.saved_before:
                yield piece
                room -= piece.before_bytes()
                if room <= 0:
                    return

    def prefetch_after(self, done: int = 0, ahead: int = 1) -> None:
        """The same for the next `ahead` after parts."""
        for piece in itertools.islice(self._next_after(done), ahead):
            piece.prefetch_after()

    def after_bytes(self) -> int:
        """Of the first saved after part."""
        return sum(piece.after_bytes() for piece in itertools.islice(self._next_after(0), 1))

    def _next_after(self, done: int) -> Iterator[Piece]:
        return (piece for piece in self.pieces[done:] if piece.saved_after or piece.parts)
