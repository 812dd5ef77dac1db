"""alpha chosen from what training steps show, under the budgets.

"memo" is MEMO's closed form (arXiv 2407.12117, 4.1) from two observed steps: the largest share for
which one layer's copies hide behind one layer's forward, and for which all of them fit the host.
"auto" begins there, as at the most that the link hides, and then measures whole steps at that share,
at none, and between them: copies that hide behind a layer's forward on average can still be late for
one piece, and what is recomputed can be cheaper than the wait (AlphaSearch). A share whose steps wait for copies
for more than 1 % of their time is not taken where another is known. Steps of one length alone are compared;
where lengths vary from step to step, the closed form stands. Under EBBTIDE=1 the address planner
confirms what "auto" takes (Note [Confirmed by the planner]).

Both stay within what the device has left beside the most that was alive in the observed steps, in which
nothing but layers' inputs and outputs was swapped (device_part): a share is tried with the user's own steps, which
must not run out of memory for it. What was alive may have been so at another moment than a share's copies are: once the
share that seemed to fit was measured, and none below it is better, "auto" goes on once with what is left beside that.

Nothing here waits for the device: times that are not known yet are asked for at the next step. The host may be
several steps ahead of it for good, so what is known of earlier steps is used then.

Note [Confirmed by the planner]
Bytes say that a share fits, addresses may not: what is swapped dies out of order, and the lowest plan
of a step may be higher than its live bytes ever are. So each share's steps are asked for their plan: if
that is higher than what the device can give the arena, the share is refused and a smaller one taken,
with less on its way to the host and more computed again. A share that is settled on before its steps
have a plan is asked again until they have one, or for _PATIENCE steps. Without the arena there is no
plan of the real steps, and the report says so.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from .. import is_active
from .._marks import _tensors
from .._stats import StepPlan, device_index, step_plan
from ._choice import AlphaSearch, LayerCost, choose, device_part, in_pieces, memo_alpha
from ._layer_find import find_layers
from ._layer_room import headroom
from ._pickling import Hook

if TYPE_CHECKING:
    from ._layer_record import Tally
    from ._offloaded import Offloaded

_STEPS = 2  # the first one also measures what is loaded and compiled
_PIECES = 64  # shares are multiples of 1/64, so that they do not follow noise
_PATIENCE = 12  # steps that a share may take until two of one length have been seen
_MEASURED = 2  # the shorter of so many steps counts
_MOST_WAITING = 8  # forwards whose times may be unknown at once
_UNTIL_PLANNED = 2  # steps until the last round with a plan is one of the present share


class _Moment:
    """A point in a device's time; on the host, in its own."""

    def __init__(self, device: torch.device) -> None:
        self._seconds = time.perf_counter()
        self._event: Any = None
        if device.type == "cuda":
            self._event = torch.cuda.Event(enable_timing=True)
            self._event.record(torch.cuda.current_stream(device))

    @property
    def is_known(self) -> bool:
        return self._event is None or bool(self._event.query())

    def seconds_after(self, other: _Moment) -> float:
        if self._event is None:
            return self._seconds - other._seconds
        return float(other._event.elapsed_time(self._event)) / 1e3


@dataclasses.dataclass
class _Begun:
    """A training forward's begin: when, for how many elements of input, at which share, and how long steps had
    waited for copies when it was known to have begun: the host is ahead of the device, and knows of no later waits."""

    moment: _Moment
    elements: int
    alpha: float
    waited_ns: int | None = None


@dataclasses.dataclass
class _Layers:
    """The layers that a forward ran: text alone leaves out those of a model's vision tower."""

    begun: _Moment
    ended: _Moment | None = None  # behind the last layer: the head hides no layer's copies
    last: int = -1  # that layer's index
    ran: int = 0

    @property
    def is_known(self) -> bool:
        return self.ended is not None and self.ended.is_known

    def layer_seconds(self) -> float:
        assert self.ended is not None
        return self.ended.seconds_after(self.begun) / self.ran


class AutoAlpha:
    """Watches a model's training forwards, settles on a share, and is gone."""

    def __init__(self, offloaded: Offloaded, is_measured: bool) -> None:
        self._offloaded = offloaded
        self._device = next(offloaded.root.parameters()).device
        self._is_measured = is_measured
        self._begun: list[_Begun] = []
        self._layers: _Layers | None = None  # of the latest forward
        self._observed: list[_Layers] = []  # of forwards from the _STEPS-th on: until one's time is known
        self._search: AlphaSearch | None = None
        self._hooks: list[Any] = []
        self._most: tuple[float, ...] = ()  # each layer's share, as much as the limits allow
        self._pieces: tuple[int, ...] = ()  # of each layer, in the observed steps
        self._leaving: tuple[int, ...] = ()  # the layers that are swapped; others stay on the device
        self._is_tight = False  # the device has no room for a piece more than a layer's share
        self._wanted: tuple[float, ...] = ()  # each layer's share, as much as the link and the host allow,
        self._wanted_limit = ""  # and which of them keeps it from being larger
        self._rest: tuple[float, ...] = ()  # bytes of each layer that its share is of
        self._is_raised = False  # the shares are those that the device was found to have room for beside smaller ones
        self.gap = 0.0  # of what is recomputed, at most so much might be saved by another choice
        self.limit = ""  # what keeps alpha from being larger: "link", "host", "time", "device"; "": nothing
        self._plans: dict[float, StepPlan] = {}  # of shares' steps, by alpha
        self._settled: float | None = None  # that part; its steps wait for their plan
        self._settled_steps = 0
        self.plan: StepPlan | None = None  # of the share settled on; None: nothing plans addresses

    def install(self) -> None:
        root = self._offloaded.root
        self._hooks = [root.register_forward_pre_hook(Hook(self._begin), with_kwargs=True)]
        for index, layer in enumerate(find_layers(root).values()):
            self._hooks += [
                layer.register_forward_pre_hook(Hook(self._begin_layer)),
                layer.register_forward_hook(Hook(functools.partial(self._end, index))),
            ]

    def undo(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def _begin(self, module: torch.nn.Module, args: Any, kwargs: Any) -> None:
        if not (module.training and torch.is_grad_enabled()):
            return
        device = next(module.parameters()).device
        if device != self._device:  # the model was moved: what was seen elsewhere says nothing
            self._device, self._begun, self._layers, self._search = device, [], None, None
            self._observed, self._plans, self._settled = [], {}, None
        self._note_waits()
        if self._layers is not None and len(self._begun) >= _STEPS and len(self._observed) < _MOST_WAITING:
            self._observed.append(self._layers)
        self._layers = None
        if self._settled is not None:
            self._confirm()
        elif self._search is not None:
            self._measure()
        elif known := [layers for layers in self._observed if layers.is_known]:
            self._choose(known[-1].layer_seconds())
        if not self._hooks:
            return
        elements = sum(tensor.numel() for tensor in _tensors((*args, kwargs)))
        alpha = self._offloaded.options.alpha
        self._begun.append(_Begun(_Moment(self._device), elements, alpha))

    def _note_waits(self) -> None:
        stats = getattr(self._offloaded.stores(self._device), "stats", lambda: None)()
        waited = 0 if stats is None else stats.exposed_out_ns + stats.exposed_in_ns
        for begun in self._begun:
            if begun.waited_ns is None and begun.moment.is_known:
                begun.waited_ns = waited

    def _begin_layer(self, module: torch.nn.Module, *_: Any) -> None:
        if module.training and torch.is_grad_enabled() and self._search is None and self._layers is None:
            self._layers = _Layers(_Moment(self._device))

    def _end(self, index: int, module: torch.nn.Module, *_: Any) -> None:
        """A layer that came before has ended once already: it runs again, in backward, for checkpointing around it."""
        layers = self._layers
        if module.training and torch.is_grad_enabled() and layers is not None and index > layers.last:
            layers.ended, layers.last = _Moment(self._device), index
            layers.ran += 1

    def _choose(self, layer_time: float) -> None:
        offloaded = self._offloaded
        assert offloaded.layers is not None
        store = offloaded.stores(self._device)
        stats = getattr(store, "stats", lambda: None)()
        tallies = offloaded.layers.counts()
        swapped = [tally for tally in tallies if tally.calls and tally.swapped_bytes]
        self._rest = tuple(tally.recomputed_bytes / tally.calls if tally.calls else 0.0 for tally in tallies)
        if stats is not None and not swapped and self._is_measured:
            self._choose_of_staying(tallies)
            return
        if stats is None or not swapped or stats.copying_out_ns <= 0 or not any(self._rest):
            self.undo()
            return
        link_bytes = stats.timed_out_bytes / (stats.copying_out_ns / 1e9) * layer_time
        if self._is_measured:
            # Copies of the last layer that is swapped have the next one's time too, if that stays.
            behind = len(swapped) + (len(swapped) < sum(tally.calls > 0 for tally in tallies))
            link_bytes *= behind / len(swapped)
            self._most, self.limit, self.gap = _shares(tallies, link_bytes, stats.host_budget_bytes)
        else:
            alpha, self.limit = memo_alpha(
                always=max(tally.swapped_bytes / tally.calls for tally in swapped),
                rest=max(tally.recomputed_bytes / tally.calls for tally in swapped),
                layers=len(swapped),
                bytes_per_layer_time=link_bytes,
                host_bytes=stats.host_budget_bytes,
            )
            self._most = (int(alpha * _PIECES) / _PIECES,) * len(tallies)
        self._pieces = tuple(tally.pieces for tally in tallies)
        self._leaving = tuple(i for i, tally in enumerate(tallies) if tally.calls and tally.swapped_bytes)
        self._wanted, self._wanted_limit = self._most, self.limit
        self._is_tight = self._is_raised = False
        self._stay_within(headroom(self._device), tallies)
        if not self._is_measured:
            self._apply(1.0)
            self.undo()
            return
        self._search_below()

    def _choose_of_staying(self, tallies: Sequence[Tally]) -> None:
        """All layers stay, as a model's only one does: neither link nor host limits what is kept, but the device."""
        room = headroom(self._device)
        if room is None or not any(self._rest):
            self.undo()
            return
        self._most = self._wanted = (1.0,) * len(tallies)
        self._pieces = tuple(tally.pieces for tally in tallies)
        self._stay_within(room, tallies)
        self._search_below()

    def _search_below(self) -> None:
        """Measures shares, up to the most."""
        self._search = AlphaSearch()
        if any(self._most):
            self._measure()
        else:
            self._settle(1.0)

    def _stay_within(self, room: int | None, tallies: Sequence[Tally]) -> None:
        """Lowers the shares to those that the device has `room` for, see device_part; None: it is not known."""
        if room is None:
            return
        called = [(tally, share * rest)
                  for tally, share, rest in zip(tallies, self._whole_pieces(1.0), self._rest, strict=True) if tally.calls]
        staying = [(tally.kept_bytes / tally.calls, more) for tally, more in called if not tally.swapped_bytes]
        hbm = self._offloaded.options.hbm
        part = device_part(
            room,
            moving=max((more for tally, more in called if tally.swapped_bytes), default=0.0),
            staying=sum(more for _, more in staying),
            staying_at_most=max(0.0, hbm - sum(kept for kept, _ in staying)) if hbm is not None else math.inf,
        )
        if part < 1:
            self._most = tuple(int(part * share * _PIECES) / _PIECES for share in self._most)
            self.limit, self._is_tight = "device", True

    def _measure(self) -> None:
        """Goes on to the next share once the present one's steps are known."""
        assert self._search is not None
        alpha = self._offloaded.options.alpha
        part = alpha / max(self._most)
        here = [begun for begun in self._begun if begun.alpha == alpha and begun.waited_ns is not None]
        waits = [begun.waited_ns for begun in here if begun.waited_ns is not None]
        # The first step at a share also finds room for it.
        lengths = [
            (later.moment.seconds_after(earlier.moment), earlier.elements)
            for earlier, later in zip(here[1:], here[2:], strict=False)
        ]
        reference = self._begun[0].elements
        seconds = [spent for spent, elements in lengths if elements == reference]
        if len(seconds) < _MEASURED:
            if len(here) > _PATIENCE:
                self._settle(self._search.best())
            return
        if self._is_refused():
            self._search.refuse(part)
        else:
            waited = (waits[-1] - waits[1]) / (len(here) - 2)  # a step, in the mean
            self._search.note(part, min(seconds), waited / 1e9)
        following = self._search.following()
        if following is not None:
            self._apply(following)
        elif self._search.best() < 1 or not self._raise():
            self._settle(self._search.best())

    def _raise(self) -> bool:
        """Whether there are larger shares to measure, that the device has room for beside those that it was thought
        to hold at most. With a budget (hbm) it is not asked."""
        room = headroom(self._device) if self._is_tight and not self._is_raised else None
        if room is None or self._offloaded.options.hbm is not None:
            return False
        before, most = self._whole_pieces(1.0), self._most
        more = [(wanted - share) * rest for wanted, share, rest in zip(self._wanted, most, self._rest, strict=True)]
        moving = max((more[i] for i in self._leaving), default=0.0)
        part = device_part(room, moving, sum(more) - sum(more[i] for i in self._leaving))
        self._most = tuple(
            int((share + part * (wanted - share)) * _PIECES) / _PIECES
            for wanted, share in zip(self._wanted, most, strict=True)
        )
        if max(self._most) <= max(most) or self._whole_pieces(1.0) == before:
            self._most = most
            return False
        assert self._search is not None
        self._search = self._search.scaled(max(most) / max(self._most))
        self._is_raised = True
        self.limit = self._wanted_limit if self._most == self._wanted else "device"
        self._apply(1.0)
        return True

    def _settle(self, part: float) -> None:
        assert self._search is not None
        self._settled, self._settled_steps = part, 0
        if part < 1:
            beyond = "link" if self._search.is_late_beyond else "time"
            self.limit = "device" if self._search.is_bounded else beyond
        self._apply(part)
        self.plan = self._plans.get(self._offloaded.options.alpha)
        if self.plan is not None or self._asked_plan() is None:
            self.undo()

    def _confirm(self) -> None:
        """The share stands once its steps' plan fits, or was waited for long enough."""
        assert self._search is not None and self._settled is not None
        self._settled_steps += 1
        if self._settled_steps <= _UNTIL_PLANNED:
            return
        is_refused = self._is_refused()
        self.plan = self._plans.get(self._offloaded.options.alpha)
        if is_refused and self._offloaded.options.alpha > 0:
            self._search.refuse(self._settled)
            self._settle(self._search.best())
        elif self.plan is not None or self._settled_steps > _PATIENCE:
            self.plan = self.plan or self._asked_plan()
            self.undo()

    def _is_refused(self) -> bool:
        """Whether the steps at the present share have a plan that the device cannot hold."""
        plan = self._asked_plan()
        if plan is None or plan.height_bytes == 0:
            return False
        self._plans[self._offloaded.options.alpha] = plan
        return not plan.fits

    def _asked_plan(self) -> StepPlan | None:
        return step_plan(device_index(self._device)) if is_active() else None

    def _apply(self, part: float) -> None:
        """So much of what the limits allow."""
        offloaded = self._offloaded
        alpha = part * max(self._most, default=0.0)
        if alpha != offloaded.options.alpha:
            options = dataclasses.replace(
                offloaded.options, alpha=alpha, layer_alphas=self._whole_pieces(part)
            )
            offloaded.wrap_layers(options)

    def _whole_pieces(self, part: float) -> tuple[float, ...]:
        """So much of what the limits allow, in pieces of each layer: what a layer's share has beside them would
        be rounded, and a piece more than the link carries is waited for."""
        leaving = self._leaving
        found = in_pieces(
            [part * self._most[i] for i in leaving], [self._pieces[i] for i in leaving], not self._is_tight
        )
        # Of layers that stay as much stays as is swapped of others.
        shares = [max(found) if found else part * most for most in self._most]
        for i, share in zip(leaving, found, strict=True):
            shares[i] = share
        return tuple(shares)


def _shares(
    tallies: Sequence[Tally], link_bytes: float, host_bytes: float
) -> tuple[tuple[float, ...], str, float]:
    """Each layer's share for the least recomputation, what limits it, and the part of the recomputation that
    a better choice might spare (Choice.gap_seconds).

    Assumed: a byte takes as long to compute again in every layer. Layers that stay on the device are
    none of it: of these the largest share stays, as much as is swapped of others.
    """
    indices = [i for i, tally in enumerate(tallies) if tally.calls and tally.swapped_bytes]
    costs = []
    for i in indices:
        tally = tallies[i]
        rest = tally.recomputed_bytes / tally.calls
        costs.append(LayerCost(tally.swapped_bytes / tally.calls, rest, rest, link_bytes, _PIECES))
    choice = choose(costs, host_bytes, device_bytes=0)
    found = [layer.swapped / _PIECES for layer in choice.layers]
    shares = [max(found, default=0.0)] * len(tallies)
    for i, share in zip(indices, found, strict=True):
        shares[i] = share
    gap = choice.gap_seconds / choice.recompute_seconds if choice.recompute_seconds > 0 else 0.0
    return tuple(shares), choice.limits[0] if choice.limits else "", gap
