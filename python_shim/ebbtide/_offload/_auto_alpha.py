"""alpha chosen from what training steps show, under the budgets.

"memo" is MEMO's closed form (arXiv 2407.12117, 4.1) from two observed steps: the largest share for
which one layer's copies hide behind one layer's forward, and for which all of them fit the host.
"auto" begins there, as at the most that the link hides, and then measures whole steps at that share,
at none, and between them: copies that hide behind a layer's forward on average can still be late for
one piece, and what is recomputed can be cheaper than the wait (AlphaSearch). A share whose steps wait for copies
for too long (LATE) is not taken where another is known. Steps of one length alone are compared;
where lengths vary from step to step, half of the closed form's share is tried as long as steps wait for too long.
Under EBBTIDE=1 the address planner confirms what "auto" takes (Note [Confirmed by the planner]).

Where the device has room, "auto" first has as many layers as fit keep all they save there (_keeping.py): nothing
of theirs is copied or computed again, and the copies of the layers between them have their time, too. The shares
that it then measures are those of the others.

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

import copy
import dataclasses
import functools
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from .. import is_active
from .._marks import _tensors
from .._stats import StepPlan, device_index, step_plan
from ._auto_keeping import AutoKeeping
from ._auto_shares import LayerSeen, LayerShares
from ._choice import LATE, AlphaSearch
from ._keeping import Keeping
from ._layer_find import find_layers
from ._observed import Begun, LayersRun, Moment
from ._pickling import Hook

if TYPE_CHECKING:
    from ._offloaded import Offloaded

_STEPS = 2  # the first one also measures what is loaded and compiled
_PATIENCE = 12  # steps that a share may take until two of one length have been seen
_MEASURED = 2  # the shorter of so many steps counts
_MOST_WAITING = 8  # forwards whose times may be unknown at once
_LEAST_PART = 1 / 8  # of the most, where lengths vary
_UNTIL_PLANNED = 2  # steps until the last round with a plan is one of the present share


class _Found(NamedTuple):
    """Shares that were measured."""

    shares: LayerShares
    keeping: Keeping | None
    search: AlphaSearch


class AutoAlpha:
    """Watches a model's training forwards, settles on a share, and is gone."""

    def __init__(self, offloaded: Offloaded, is_measured: bool) -> None:
        self._offloaded = offloaded
        self._device = next(offloaded.root.parameters()).device
        self._is_measured = is_measured
        self._begun: list[Begun] = []
        self._is_before_layers = False  # a forward has begun, and none of its layers
        self._layers: LayersRun | None = None  # of the latest forward
        self._observed: list[LayersRun] = []  # of forwards from the _STEPS-th on: until one's time is known
        self._search: AlphaSearch | None = None
        self._hooks: list[Any] = []
        self._shares = LayerShares(())
        self._limits = (0.0, 0.0)  # bytes that the link copies in a layer's time, and the host budget
        self._peak = offloaded.peak
        self._keeping = AutoKeeping(offloaded)
        self._former: _Found | None = None  # with fewer layers that keep what they save
        self.gap = 0.0  # of what is recomputed, at most so much might be saved by another choice
        self.limit = ""  # what keeps alpha from being larger: "link", "host", "time", "device"; "": nothing
        self._plans: dict[float, StepPlan] = {}  # of shares' steps, by alpha
        self._settled: float | None = None  # that part; its steps wait for their plan
        self._settled_steps = 0
        self._varies = False  # steps are of many lengths: their shares are lowered from the most on
        self._is_watching = False  # for calls that are longer than those that were seen
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
        if self._is_watching:
            self._watch(device)
            return
        if device != self._device:  # the model was moved: what was seen elsewhere says nothing
            self._device, self._begun, self._layers, self._search = device, [], None, None
            self._observed, self._plans, self._settled = [], {}, None
            self._keeping, self._former, self._varies = AutoKeeping(self._offloaded), None, False
            self._peak.restart()
        self._peak.note_begin(device)
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
        self._begun.append(Begun(Moment(self._device), elements, alpha))
        self._is_before_layers = True

    def _note_waits(self) -> None:
        stats = getattr(self._offloaded.stores(self._device), "stats", lambda: None)()
        waited = 0 if stats is None else stats.exposed_out_ns + stats.exposed_in_ns
        for begun in self._begun:
            if begun.waited_ns is None and begun.moment.is_known:
                begun.waited_ns = waited

    def _begin_layer(self, module: torch.nn.Module, *_: Any) -> None:
        if not (module.training and torch.is_grad_enabled()):
            return
        if self._is_before_layers:  # what they have in common, a mask, is there
            self._is_before_layers = False
            self._keeping.note_begin(self._device)
        if self._search is None and self._layers is None:
            self._layers = LayersRun(Moment(self._device))

    def _end(self, index: int, module: torch.nn.Module, *_: Any) -> None:
        """A layer that came before has ended once already: it runs again, in backward, for checkpointing around it."""
        layers = self._layers
        if module.training and torch.is_grad_enabled() and layers is not None and index > layers.last:
            layers.ended, layers.last = Moment(self._device), index
            layers.ran += 1

    def _choose(self, layer_time: float) -> None:
        offloaded = self._offloaded
        assert offloaded.layers is not None
        stats = getattr(offloaded.stores(self._device), "stats", lambda: None)()
        seen = [LayerSeen.of(tally) for tally in offloaded.layers.counts()]
        shares = self._shares = LayerShares(seen)
        has_rest, runs_whole = any(layer.rest for layer in seen), any(layer.whole for layer in seen)
        if not (has_rest or (runs_whole and self._is_measured)):
            self.undo()
        elif not shares.leaving and self._is_measured and has_rest:
            self._choose_of_staying()
        elif not shares.leaving and self._is_measured:
            self._choose_of_leaving()  # of the inputs of layers that run whole: without any, under no limits
        elif not shares.leaving or stats is None or stats.copying_out_ns <= 0:
            self.undo()
        else:
            carried = stats.timed_out_bytes / (stats.copying_out_ns / 1e9) * layer_time
            self._limits = carried, stats.host_budget_bytes
            self._choose_of_leaving()

    def _choose_of_staying(self) -> None:
        """All layers stay, as a model's only one does: neither link nor host limits what is kept, but the device."""
        room = self._peak.headroom(self._device)
        if room is None:
            self.undo()
            return
        self._shares.take_all()
        self._stay_within(room)
        self._search_below()

    def _choose_of_leaving(self) -> None:
        if not self._is_measured:
            self._shares.take_memos(*self._limits)
            self._stay_within(self._peak.headroom(self._device))
            self._apply(1.0)
            self.undo()
            return
        self._keeping.first(self._device, self._shares)
        self._divide(0.0)

    def _divide(self, taken: float) -> None:
        """Shares among the layers that do not keep what they save, and measures; beside steps that have `taken` so
        many bytes for shares and for what layers keep."""
        self._shares.take_most(*self._limits)
        self._stay_within(self._peak.headroom(self._device), taken)
        self._search_below()

    def _stay_within(self, room: int | None, taken: float = 0.0) -> None:
        """Of a device that has `room` beside steps that have `taken` so much."""
        if room is not None:
            self._shares.stay_within(room + taken - self._shares.kept_bytes, self._offloaded.options.hbm)
        self.limit, self.gap = self._shares.limit, self._shares.gap

    def _search_below(self) -> None:
        """Measures shares, up to the most."""
        self._search, self._varies = AlphaSearch(), False
        if self._keeping.value != self._offloaded.options.keeping:  # no step was one like those that come
            self._begun, self._plans = [], {}
            self._apply(0.0)
        if not any(self._shares.most) and not self._keeping.may_be_more:
            self._settle(1.0)
        elif self._begun:
            self._measure()

    def _measure(self) -> None:
        """Goes on to the next share once the present one's steps are known."""
        assert self._search is not None
        alpha = self._offloaded.options.alpha
        most = max(self._shares.most)
        part = alpha / most if most > 0 else 1.0  # without shares, all of nothing
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
                spent = here[-1].moment.seconds_after(here[1].moment)
                self._lower_if_late(part, (waits[-1] - waits[1]) / 1e9 > LATE * spent)
            return
        if self._is_refused():
            if self._keep_less():
                return
            self._search.refuse(part)
        else:
            waited = (waits[-1] - waits[1]) / (len(here) - 2)  # a step, in the mean
            self._search.note(part, min(seconds), waited / 1e9)
        following = self._search.following() if most > 0 else None
        if following is not None:
            self._apply(following)
        elif not (self._search.best() == 1 and self._raise()) and not self._look_again():
            self._settle_on_shortest()

    def _lower_if_late(self, part: float, is_late: bool) -> None:
        """Steps of many lengths cannot be compared, but how long they wait for copies says enough: half of a share with
        which they wait for too long. Begins with all that the limits allow."""
        if not self._varies:
            self._varies = True
            self._look_at_longer()
            if any(self._shares.most):
                self._apply(1.0)
            else:
                self._settle_as_it_is(1.0)
        elif is_late and part > 0:
            self.limit = "link"
            self._apply(part / 2 if part > _LEAST_PART else 0.0)
        else:
            self._settle_as_it_is(part)

    def _raise(self) -> bool:
        """Whether there are larger shares to measure, that the device has room for beside those that it was thought
        to hold at most. With a budget (hbm) it is not asked."""
        room = self._peak.headroom(self._device) if self._shares.may_be_raised else None
        if room is None or self._offloaded.options.hbm is not None:
            return False
        ratio = self._shares.raise_within(room)
        if ratio is None:
            return False
        assert self._search is not None
        self._search = self._search.scaled(ratio)
        self.limit = self._shares.limit
        self._apply(1.0)
        return True

    def _look_again(self) -> bool:
        """Whether more layers may keep what they save, with which shares are measured once more."""
        assert self._search is not None
        found = _Found(copy.copy(self._shares), self._keeping.value, self._search)
        if self._former is None or found.search.shortest < self._former.search.shortest:
            self._former = found
        taken = self._shares.kept_bytes + self._shares.moving_bytes * max(self._shares.most)
        if not self._keeping.more(self._device, self._shares):
            return False
        self._divide(taken)
        return True

    def _settle_on_shortest(self) -> None:
        """Of the shares that were measured, with however many layers that keep what they save."""
        if self._former is not None:
            self._shares, self._keeping.value, self._search = self._former
            self.limit, self.gap = self._shares.limit, self._shares.gap
        if self._keeping.value != self._offloaded.options.keeping:
            self._plans = {}
        assert self._search is not None
        self._settle(self._search.best())

    def _settle(self, part: float) -> None:
        assert self._search is not None
        if part < 1:
            beyond = "link" if self._search.is_late_beyond else "time"
            self.limit = "device" if self._search.is_bounded else beyond
        self._settle_as_it_is(part)

    def _settle_as_it_is(self, part: float) -> None:
        """Whatever limits the share was said before."""
        self._settled, self._settled_steps = part, 0
        self._apply(part)
        self.plan = self._plans.get(self._offloaded.options.alpha)
        if self.plan is not None or self._asked_plan() is None:
            self._end_of_choice()

    def _confirm(self) -> None:
        """The share stands once its steps' plan fits, or was waited for long enough."""
        assert self._search is not None and self._settled is not None
        self._settled_steps += 1
        if self._settled_steps <= _UNTIL_PLANNED:
            return
        is_refused = self._is_refused()
        if is_refused and self._keep_less():
            return
        self.plan = self._plans.get(self._offloaded.options.alpha)
        if is_refused and self._offloaded.options.alpha > 0:
            self._search.refuse(self._settled)
            self._settle(self._search.best())
        elif self.plan is not None or self._settled_steps > _PATIENCE:
            self.plan = self.plan or self._asked_plan()
            self._end_of_choice()

    def _end_of_choice(self) -> None:
        """Nothing is measured any more. Where layers keep what they save, longer calls may still come."""
        root, *others = self._hooks
        for hook in others:
            hook.remove()
        self._hooks, self._is_watching = [root], self._keeping.looks_at_longer
        if not self._is_watching:
            self.undo()

    def _watch(self, device: torch.device) -> None:
        """A call that was longer than all before says more of what there is room for."""
        assert self._settled is not None
        self._peak.note_begin(device)
        if device == self._device and self._keeping.was_longer:
            self._look_at_longer()
            self._apply(self._settled)
        if device != self._device or not self._keeping.looks_at_longer:
            self.undo()

    def _look_at_longer(self) -> None:
        if self._keeping.was_longer:
            self._keeping.longer(self._device, self._shares)
            self._shares.take_most(*self._limits)
            self._stay_within(self._peak.headroom(self._device))

    def _keep_less(self) -> bool:
        """Whether fewer layers keep what they save from now on, for steps whose plan the device cannot hold."""
        plan, before = self._plans[self._offloaded.options.alpha], self._shares.kept_bytes
        if not self._keeping.less(self._shares, plan.height_bytes - plan.budget_bytes):
            return False
        self._settled = self._former = None
        self._divide(before)
        return True

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
        alpha = part * max(self._shares.most, default=0.0)
        keeping = self._keeping.value
        if (alpha, keeping) != (offloaded.options.alpha, offloaded.options.keeping):
            alphas = self._shares.whole_pieces(part)
            offloaded.wrap_layers(
                dataclasses.replace(offloaded.options, alpha=alpha, layer_alphas=alphas, keeping=keeping)
            )
