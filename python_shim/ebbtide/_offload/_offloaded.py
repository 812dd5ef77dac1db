"""One model with offload on: what was changed in it, and how it is taken back."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import torch

from .._errors import EbbtideError, print_line
from .._stats import StepPlan
from . import _causal_lm, _self_check
from ._auto_alpha import AutoAlpha
from ._checkpointing import CheckpointingOff
from ._device_stores import DeviceStores
from ._head import HeadCut
from ._layer import LayerCuts, wrap_layers
from ._offload_stats import OffloadStats
from ._options import AUTO, Options
from ._peak import Peak
from ._pieces import Form
from ._registry import registry
from ._spare import Spare
from ._pickling import Unpickled
from ._report import at_exit
from ._store import KeepStore

_ATTRIBUTE = "_ebbtide_offloaded"


def offloaded_of(model: torch.nn.Module) -> Offloaded | None:
    """The offload of this model, or of the first one inside of it. None if it has none."""
    return next(iter(all_offloaded_of(model)), None)


def all_offloaded_of(model: torch.nn.Module) -> list[Offloaded]:
    parts = (part.__dict__.get(_ATTRIBUTE) for part in model.modules())
    return [found for found in parts if found is not None]


class _LayersCut:
    """wrap_layers as a cut that can be made and taken back, for the self-check."""

    def __init__(
        self, model: torch.nn.Module, options: Options, said: set[tuple[str, str]], whole_because: str = ""
    ) -> None:
        self._model, self._options, self._said, self._reason = model, options, said, whole_because
        self._cuts: LayerCuts | None = None
        self.whole_because: dict[str, str] = {}  # by layer's name; known after undo()

    def install(self) -> None:
        self._cuts = wrap_layers(self._model, self._options, KeepStore())
        self._cuts.shared.said = self._said
        for tally in self._cuts.counts():
            tally.is_traced = False
            if self._reason:
                self._cuts.treat_whole(tally.name, self._reason)

    def undo(self) -> None:
        if self._cuts is not None:
            counts = self._cuts.counts()
            self.whole_because = {t.name: t.whole_because for t in counts if t.whole_because}
            self._cuts.undo()


class Offloaded(Unpickled):
    """Made by enable(). Until undo() the model runs in pieces."""

    def __init__(
        self, model: torch.nn.Module, options: Options, chosen: str | None, around: torch.nn.Module, sharing: int
    ) -> None:
        """`around`: what the model is in. `sharing`: how many models share the budgets alike."""
        self.lm = _causal_lm.find_causal_lm(model)
        self.root = self.lm if self.lm is not None else model
        # Of what is around it, too: prompts that are learned pass through a model that is frozen itself.
        self._is_frozen = not any(parameter.requires_grad for parameter in around.parameters())
        if chosen == AUTO and options.hbm is None:
            options = dataclasses.replace(options, fetches_early=True)
        if options.hbm is not None:
            options = dataclasses.replace(options, hbm=options.hbm // sharing)
        self.options = options
        self.head: HeadCut | None = None
        self.layers: LayerCuts | None = None
        self.spare = Spare(around)
        self.peak = Peak(self.spare)
        self.stores = DeviceStores(self.root, options.host, options.strict, sharing)
        self.number = 0  # 1 for the first one that was enabled
        self._whole_because: dict[str, str] = {}
        self._said: set[tuple[str, str]] = set()  # of layers, however often they are cut again
        self._checkpointing = CheckpointingOff(self.root, options.strict)
        self._auto_alpha = None if chosen is None else AutoAlpha(self, is_measured=chosen == AUTO)

    @property
    def limit(self) -> str:
        """What keeps a chosen alpha from being larger; "" if nothing does, or alpha was given."""
        return "" if self._auto_alpha is None else self._auto_alpha.limit

    @property
    def gap(self) -> float:
        """Of what is recomputed, the part that a better choice of layers might spare at most; 0: none is better."""
        return 0.0 if self._auto_alpha is None else self._auto_alpha.gap

    @property
    def kept_layers(self) -> int:
        """How many layers "auto" has keep all they save on the device in the longest calls; 0: keep_last, or what hbm allows."""
        return 0 if self.options.keeping is None else sum(self.options.keeping.usual.stays)

    @property
    def plan(self) -> StepPlan | None:
        """The address plan of steps at an alpha that "auto" settled on; None: there is none."""
        return None if self._auto_alpha is None else self._auto_alpha.plan

    @property
    def name(self) -> str:
        return type(self.root).__name__

    def enable(self) -> None:
        """Raises EbbtideError, and leaves the model as it was, if nothing can be offloaded."""
        if self._is_frozen:
            raise EbbtideError(
                f"{self.name} is frozen: no parameter requires a gradient, so nothing is saved for "
                "backward; add an adapter or requires_grad_() first"
            )
        try:
            self._checkpointing.install()
            self._choose_cuts()
            if self._auto_alpha is not None and self.layers is not None:
                self._auto_alpha.install()
        except BaseException:
            self.undo()
            raise
        setattr(self.root, _ATTRIBUTE, self)
        self.number = registry.add(self)
        at_exit.register()

    def forms(self, batch: int, tokens: int) -> list[Form]:
        """How its parts run an input of this shape."""
        return [cut.form(batch, tokens) for cut in (self.layers, self.head) if cut is not None]

    def undo(self) -> None:
        self._retire()
        if self._auto_alpha is not None:
            self._auto_alpha.undo()
        if self.layers is not None:
            self.layers.undo()
        if self.head is not None:
            self.head.undo()
        self._checkpointing.undo()
        self.root.__dict__.pop(_ATTRIBUTE, None)

    def __deepcopy__(self, memo: dict[int, Any]) -> Offloaded:
        """Of the copy of a model: a model of its own, with another number."""
        twin = memo[id(self)] = object.__new__(Offloaded)
        twin.__dict__.update({k: copy.deepcopy(v, memo) for k, v in self.__dict__.items()})
        for tally in () if twin.layers is None else twin.layers.counts():
            tally.begin_anew()
        twin.number = registry.add(twin)
        return twin

    def _retire(self) -> None:
        if self.__dict__.get("number"):
            registry.retire(self, OffloadStats.of(self))
            self.number = 0

    __del__ = _retire  # a model may go without undo()

    def wrap_layers(self, options: Options) -> None:
        """Cut the layers, or cut them again with other options."""
        before = {} if self.layers is None else {tally.name: tally for tally in self.layers.counts()}
        if self.layers is not None:
            self.layers.undo()
            self.layers = None
        device = _causal_lm.device_of(self.root)
        if device.type != "meta":
            self.stores(device)  # what cannot be had is said before the first step
        self.layers = wrap_layers(self.root, options, self.stores, spare=self.spare, peak=self.peak)
        self.layers.shared.said = self._said
        self.options = options
        for tally in self.layers.counts():
            tally.whole_because = self._whole_because.get(tally.name)
            if tally.name in before:  # what keeps all it saves does not measure it any more
                tally.tell_whole(before[tally.name].whole_bytes, before[tally.name].whole_length)
        self.layers.refuse_packed()

    def _choose_cuts(self) -> None:
        if self.lm is None:
            self.wrap_layers(self.options)
            return
        if _self_check.cannot_be_checked(self.root):
            self.head = HeadCut(self.lm, self.options, spare=self.spare)
            self.wrap_layers(self.options)
        else:
            reference = _self_check.reference(self.lm)
            self._choose_head(reference)
            self._choose_layers(reference)
        if self.head is not None:
            self.head.install()

    def _choose_head(self, reference: _self_check.Sample) -> None:
        """With the final norm in the pieces; else without it; else whole."""
        options = dataclasses.replace(
            self.options, mini_sequence=_self_check.PIECE, label_smoothing=0.0, z_loss=0.0
        )
        for defer_norm in (True, False):
            trial = HeadCut(self.lm, options, defer_norm)
            reason = _self_check.check(self.lm, reference, trial)
            if not reason:
                self.head = HeadCut(self.lm, self.options, defer_norm, self.spare)
                return
        self._fall_back(f"head and loss of {self.name} stay whole: over pieces, {reason}")

    def _choose_layers(self, reference: _self_check.Sample) -> None:
        """Cut at their attention; else each as a whole; else not at all."""
        options = dataclasses.replace(self.options, mini_sequence=_self_check.PIECE, hbm=None)
        trial = _LayersCut(self.root, options, self._said)
        reason = _self_check.check(self.lm, reference, trial)
        if reason:
            trial = _LayersCut(self.root, options, self._said, f"in pieces, {reason}")
            reason = _self_check.check(self.lm, reference, trial)
        if not reason:
            self._whole_because = trial.whole_because
            self.wrap_layers(self.options)
            return
        self._fall_back(f"layers of {self.name} stay as they are: {reason}")
        if self.head is None:
            raise EbbtideError(f"nothing of {self.name} can be offloaded")

    def _fall_back(self, reason: str) -> None:
        if self.options.strict:
            raise EbbtideError(reason)
        print_line("warning", f"offload: {reason}")
