"""The forward of one layer while it is cut: put in the place of the layer's own."""

from __future__ import annotations

import functools
import math
import weakref
from collections.abc import Sequence
from typing import Any

import torch

from .._errors import EbbtideError
from ._attention_groups import calls_of
from ._attention_interface import captured_outputs
from ._cut import AttentionCut, Cut, ModuleCut, offers_parts
from ._device_stores import Place
from ._keeping import Level
from ._layer_ambient import Parameters, generator_of
from ._layer_arguments import NO_BATCH, CannotCut, LayerCall, input_of, is_cache, is_filled, map_tensors, tensors_in
from ._layer_budget import LayerBudget, Share
from ._layer_find import heads_of, learns, takes_packed, width_of
from ._layer_forward import run_forward
from ._layer_function import LayerFunction
from ._layer_products import UnneededProducts
from ._layer_record import LayerRecord, Piece, Returning, Stores
from ._layer_saving import storage_of
from ._layer_shared import Shared
from ._layer_tally import Tally, TallyingStore
from ._layer_whole import WholeRecord, run_whole
from ._length import Length
from ._native_saving import Externals
from ._options import SAVE
from ._peak import Peak
from ._pickling import Unpickled, former_attribute
from ._piece_size import spare_of_a_piece
from ._pieces import Form, Policy, Span, choose_policies
from ._store import KeepStore

_BEFORE_TENSORS = 8  # as large as the layer's input: what the graphs of all before parts save, norms in float32 included


class CutLayer(Unpickled):
    """Not thread-safe, as the layer itself. Evaluation runs in pieces, too, but saves nothing."""

    def __init__(self, layer: torch.nn.Module, index: int, name: str, shared: Shared) -> None:
        self._layer, self._index, self._shared = layer, index, shared
        self.tally = Tally(name)
        self._budget = LayerBudget(layer, index, shared.options)
        self._input = width_of(layer)  # until one is seen
        self._heads = heads_of(layer)
        self._is_whole_untrained = False
        self._own = layer.forward
        self._replaced = layer.__dict__.get("forward")  # another wrapper's, put back by take_out()
        self._cut = self._make_cut()
        self._products = UnneededProducts(layer)

    def put_in(self) -> None:
        self._layer.forward = self  # type: ignore[method-assign,assignment]

    def take_out(self) -> None:
        del self._layer.forward
        if self._replaced is not None:
            self._layer.forward = self._replaced  # type: ignore[method-assign]

    def stand_in(self) -> Any:
        return former_attribute(self._layer, "forward", self._replaced)

    def form(self, batch: int, tokens: int) -> Form:
        """How an input of this shape is run."""
        if batch * tokens == 0:
            return Form()
        width, dtype = self._input
        x = torch.empty(batch, tokens, width, dtype=dtype, device="meta")
        level = self._level(self._home, x)
        if self.tally.whole_because is not None:
            return Form() if level is None else Form((0, sum(level.stays)))
        spare = self._shared.spare.bytes_on(self._home)
        spans = self._budget.spans(x, spare)
        kept = () if level is None else level.stays
        swapped = sum(policy is Policy.SWAP for policy in self._policies(spans, kept))
        groups = calls_of(batch, tokens, self._heads)
        scores = 0 if level is None else sum(level.attention)
        return Form.of(spans, swapped, self._is_roomy(x, spare), groups, sum(kept), scores, sequences=batch)

    @property
    def _home(self) -> torch.device:
        """Where it was called last; before that, where its weights are."""
        if self.tally.device >= 0:
            return torch.device("cuda", self.tally.device)
        return next((parameter.device for parameter in self._layer.parameters()), torch.device("cpu"))

    def treat_whole(self, reason: str) -> None:
        """From now on the layer runs whole. Said once for each class and reason."""
        self.tally.whole_because = reason
        kind = type(self._layer).__name__
        line = f"{self.tally.name} ({kind}) is not cut into pieces but saved and run whole: {reason}"
        if self._shared.options.strict:
            raise EbbtideError(line)
        self._shared.tell_once(kind, reason, line)

    def refuse_packed(self) -> None:
        if self._shared.options.strict and takes_packed(self._layer) and learns(self._layer):
            self.treat_whole(NO_BATCH)

    def _tell(self, what: str) -> None:
        """Of calls that are not cut, though the layer is. Said once for each class."""
        kind = type(self._layer).__name__
        if self._shared.options.strict:
            raise EbbtideError(f"layers ({kind}) {what}")
        self._shared.tell_once(kind, what, f"layers ({kind}) {what}")

    @torch.compiler.disable
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        x = input_of(args, kwargs)
        if not isinstance(x, torch.Tensor) or x.numel() == 0:
            return self._own(*args, **kwargs)
        trains = torch.is_grad_enabled() and (x.requires_grad or learns(self._layer))
        args, kwargs = self._moved_here(args, kwargs)
        x = input_of(args, kwargs)
        caches = [value for value in (*args, *kwargs.values()) if is_cache(value)]
        asked = captured_outputs()
        if not trains:
            return self._own(*args, **kwargs) if caches or asked else self._run(x, args, kwargs, trains)
        if any(map(is_filled, caches)):
            self._tell("are not offloaded in calls with keys and values of earlier tokens, as prefix tuning makes them")
            return self._own(*args, **kwargs)
        if caches:  # As transformers' own checkpointing does: an empty cache has no part in training.
            args = tuple(None if is_cache(value) else value for value in args)
            kwargs = {name: None if is_cache(value) else value for name, value in kwargs.items()}
        if asked:
            names = ", ".join(f"output_{name}" for name in sorted(asked))
            self._tell(f"are not cut into pieces but saved and run whole in calls that ask for what is inside of them: {names}")
            return self._run_whole(x, args, kwargs, self._begin(x))
        return self._run(x, args, kwargs, trains)

    def _moved_here(self, args: Any, kwargs: Any) -> Any:
        """The arguments on the layer's own device, if they lie on others of its kind.

        What dispatches a model to several devices moves them inside of the layer's own forward.
        """
        home = next((parameter.device for parameter in self._layer.parameters()), None)
        found = {tensor.device for tensor in tensors_in((args, kwargs))}
        if home is None or found <= {home} or any(device.type != home.type for device in found):
            return args, kwargs
        return map_tensors(lambda tensor: tensor.to(home), (args, kwargs))

    def _begin(self, x: torch.Tensor) -> Peak | None:
        """Of a training call. Returns who is told when its backward ends, if this layer is the first one."""
        self._input = x.shape[-1], x.dtype
        self.tally.device = x.get_device()
        self.tally.tell_rows(x.shape[:-1].numel())
        self.tally.trace()  # the call before, whose backward is over
        return self._shared.peak if self._ask_for_room(x) else None

    def _run(self, x: torch.Tensor, args: Any, kwargs: Any, trains: bool) -> Any:
        peak = self._begin(x) if trains else None
        if self.tally.whole_because is None and (trains or not self._is_whole_untrained):
            generator = generator_of(x.device)
            state = generator.get_state()
            try:
                return self._run_cut(LayerCall(args, kwargs), x, trains, peak)
            except CannotCut as reason:
                generator.set_state(state)
                if trains:
                    self.treat_whole(str(reason))
                else:  # nothing is saved: nobody needs to know
                    self._is_whole_untrained = True
        return self._run_whole(x, args, kwargs, peak) if trains else self._own(*args, **kwargs)

    def _run_whole(self, x: torch.Tensor, args: Any, kwargs: Any, peak: Peak | None) -> Any:
        place = self._shared.at(x.device)
        self.tally.calls += 1
        if self.tally.pieces == 0 and self._shared.keeps(self._index):  # as much as was measured of whole calls
            return self._run_own(x, args, kwargs, peak)
        share = self._share(place, x)
        self._let_go(place, share.stays)

        def begin(record: WholeRecord) -> None:
            record.peak = peak
            self._link(record, share.stays)

        inputs = self._stores(place, share).inputs
        return run_whole(self._own, self._layer, inputs, x, (args, kwargs), self.tally, begin)

    def _run_own(self, x: torch.Tensor, args: Any, kwargs: Any, peak: Peak | None) -> Any:
        """Autograd keeps what it saves, as without offload."""
        if self._before is None:
            self._shared.last = None
        self.tally.kept_bytes += self.tally.whole_bytes_at(x.shape[:-1].numel())
        if peak is not None and x.requires_grad and not x.is_leaf:  # which would collect hooks, one a call
            x.register_hook(functools.partial(_note_backward, peak, x.device))  # does not hold x, which holds it
        return self._own(*args, **kwargs)

    def _run_cut(self, call: LayerCall, x: torch.Tensor, trains: bool, peak: Peak | None) -> torch.Tensor:
        if any(tensor.requires_grad for tensor in call.tensors()):
            raise CannotCut("an argument beside its input needs a gradient")
        spare = self._shared.spare.bytes_on(x.device)
        spans = self._budget.spans(x, spare)
        if not trains:
            with torch.no_grad():
                return run_forward(self._record(call, x, spans), x, trains=False)
        place = self._shared.at(x.device)
        share, live = self._share(place, x), place.live_on_host()
        swaps_first = place.is_first(self._index) and not share.stays
        if swaps_first:
            place.reserve(live + share.expected)
        record = self._record(call, x, spans, place, share)
        record.keeps_before = self._is_roomy(x, spare)
        record.peak = peak
        self._link(record, share.stays)
        self._let_go(place, share.stays)
        result = LayerFunction.apply(record, x, *record.parameters.originals)
        self.tally.calls += 1
        self.tally.pieces = len(spans)
        self._shared.tell_heavy(type(self._layer).__name__, record)
        self._shared.always_per_token = max(
            self._shared.always_per_token, self.tally.always_bytes_per_token
        )
        if swaps_first:  # by now it is known what a layer needs
            now = place.live_on_host()
            place.reserve(now + share.swapped_later * (now - live))
        if place.later(self._index, self._shared.layers) == 1 and not self._is_quick:
            place.store.layer_ended()
            if self._shared.kept:  # nobody told of this layer: what the last one that is swapped saved has its time
                place.store.layer_ended()
        return result

    def _ask_for_room(self, x: torch.Tensor) -> bool:
        """Once in a forward, at the first layer that trains: which layers may keep all they save. Returns whether it is
        that layer. Where a later one is called with more tokens (a decoder's behind an encoder's), no more may from there
        on than there is room for with so many in all of them."""
        shared, length = self._shared, Length.of(x)
        is_first = self._index <= shared.reached
        if is_first or length.pairs > shared.asked.pairs:
            found, before = self._level(x.device, x), shared.level
            if is_first or (before is not None and (found is None or sum(found.stays) < sum(before.stays))):
                shared.level = found
            shared.asked = length
            if length.pairs >= shared.longest[0].pairs:
                shared.longest = length, 0 if shared.level is None else shared.level.total
        shared.reached = self._index
        return is_first

    def _level(self, device: torch.device, x: torch.Tensor) -> Level | None:
        """`x`: the input of a call, or a tensor of its shape."""
        keeping, spare = self._shared.options.keeping, self._shared.spare
        if keeping is None:
            return None
        return keeping.level(device, Length.of(x), x.nbytes, spare.gradient_bytes(device))

    def _let_go(self, place: Place, stays: bool) -> None:
        """Of what has had its time to leave the device. A layer that keeps what it saves is time for the others' copies."""
        if not (stays and self._shared.kept):
            place.store.layer_ended()

    def _is_roomy(self, x: torch.Tensor, spare_bytes: int) -> bool:
        """Whether there is room for what all pieces' parts before attention save."""
        # Who says how long pieces are wants no more memory than these need.
        if self._shared.options.mini_sequence is not None:
            return False
        return _BEFORE_TENSORS * x.nbytes <= spare_of_a_piece(spare_bytes, x.nbytes)

    @property
    def _is_quick(self) -> bool:
        """Whether half a layer's time is enough to copy what half a layer saves.

        Attention's output alone takes a fifth of the time of the row-wise work until the next attention
        (8B, 50 GB/s), whatever the length; with activations beside it attention's time is needed, too.
        """
        return self._shared.policies is None and self._shared.options.alpha == 0 and not self._shared.kept

    def _share(self, place: Place, x: torch.Tensor) -> Share:
        shared = self._shared
        later, room = place.later(self._index, shared.layers), place.room(shared.options.hbm)

        def warn(line: str) -> None:
            shared.tell_once("budget", "attention", line)

        return self._budget.share(
            x, later, room, shared.always_per_token, self.tally.rest_bytes_per_token, shared.kept, warn
        )

    def _record(
        self,
        call: LayerCall,
        x: torch.Tensor,
        spans: Sequence[Span],
        place: Place | None = None,
        share: Share | None = None,
    ) -> LayerRecord:
        """Without a place and a share nothing is saved."""
        policies = [Policy.RECOMPUTE] * len(spans) if share is None else self._policies(spans, self._shared.kept)
        repeats = share is not None and share.repeats_attention
        return LayerRecord(
            cut=self._cut,
            call=call,
            x=x,
            parameters=Parameters(self._layer),
            pieces=[Piece(span, policy) for span, policy in zip(spans, policies, strict=True)],
            stores=self._stores(place, share),
            tally=Tally(self.tally.name) if share is None else self.tally,
            externals=self._externals(call),
            repeats_attention=repeats,
            saves_attention=self._shared.options.attention == SAVE,
            keeps_scores=share is not None and self._shared.keeps_scores(self._index),
            fetches_early=self._shared.options.fetches_early,
            rest_allowance=math.inf if share is None else share.rest_allowance,
            rest_per_token=0.0 if share is None else share.rest_per_token,
            at_attention=place.store.layer_ended if place and self._is_quick else _nothing,
            products=self._products,
        )

    def _link(self, record: LayerRecord | WholeRecord, stays: bool) -> None:
        """Backward of this call is followed by that of the call before it, if that is another layer's.

        Nothing of a layer that keeps what it saves is to come back: in its place the one before may come earlier.
        """
        shared, before = self._shared, self._before
        record.previous = None if before is None else shared.last
        if not (stays and shared.kept):
            shared.last = weakref.ref(record)
        elif before is None:
            shared.last = None

    @property
    def _before(self) -> Returning | None:
        """The call before this one, if it is another layer's and waits for its backward."""
        last = self._shared.last
        return last() if last is not None and self._index > 0 else None

    def _policies(self, spans: Sequence[Span], kept: Sequence[bool]) -> Sequence[Policy]:
        if self._shared.policies is not None:
            return self._shared.policies(self._index, spans)
        options = self._shared.options
        earlier = 0 if options.layer_alphas else self._index * len(spans)
        return choose_policies(spans, self._budget.alpha(kept), earlier)

    def _stores(self, place: Place | None, share: Share | None) -> Stores:
        kept = TallyingStore(KeepStore() if place is None else place.kept, self.tally)
        if place is None or share is None or share.stays:
            return Stores(kept, kept, kept)
        swapped = TallyingStore(place.store, self.tally)
        return Stores(swapped, kept, swapped)

    def _externals(self, call: LayerCall) -> Externals:
        """Storages that live on beside what a call saves."""
        tensors = [*self._layer.parameters(), *self._layer.buffers(), *call.tensors()]
        return Externals(map(storage_of, tensors))

    def _make_cut(self) -> Cut:
        if offers_parts(self._layer):
            return ModuleCut(self._layer)
        return AttentionCut(self._own, self._owns)

    def _owns(self, tensor: torch.Tensor) -> bool:
        owned = (*self._layer.parameters(), *self._layer.buffers())
        return any(storage_of(tensor) == storage_of(other) for other in owned)


def _nothing() -> None: ...


def _note_backward(peak: Peak, device: torch.device, _: torch.Tensor) -> None:
    peak.note_backward(device)
