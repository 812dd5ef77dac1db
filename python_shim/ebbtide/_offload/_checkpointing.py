"""Activation checkpointing of transformers, which offload makes needless, and would do twice."""

from __future__ import annotations

from typing import Any

from .._errors import EbbtideError, print_line
from ._pickling import Unpickled, former_attribute

_SWITCHES = ("activation_checkpointing_enable", "gradient_checkpointing_enable")
_INPUT_GRADIENTS = "enable_input_require_grads"
_REASON = (
    "activation checkpointing is left off: ebbtide.offload recomputes by itself, without attention; "
    "remove gradient_checkpointing, or use ebbtide.offload(model, off=True) to have it back"
)


class _Replacement(Unpickled):
    """In the place of one of a model's methods."""

    def __init__(self, owner: CheckpointingOff, name: str) -> None:
        self._owner, self._name = owner, name

    def stand_in(self) -> Any:
        return former_attribute(self._owner.model, self._name, None)


class _Ignored(_Replacement):
    """Of one that would switch checkpointing on."""

    def __call__(self, *_: Any, **__: Any) -> None:
        self._owner.tell()


class _InputGradientsLater(_Replacement):
    """Of `enable_input_require_grads`, which undo() calls then.

    Adapters ask for gradients of embeddings because checkpointing's inputs must need some. Cut layers
    need none, and the embeddings would be kept until the end of backward for it.
    """

    def __call__(self) -> None:
        self._owner.had_input_gradients = True


class CheckpointingOff:
    """Switches a model's activation checkpointing off until undo(), and says so once."""

    def __init__(self, model: Any, strict: bool) -> None:
        self.model = model
        self._strict = strict
        self._was_on = [m for m in model.modules() if getattr(m, "gradient_checkpointing", False)]
        self._told = False
        self.had_input_gradients = bool(getattr(model, "_require_grads_hooks", None))

    def tell(self) -> None:
        if self._strict:
            raise EbbtideError(_REASON)
        if not self._told:
            print_line("warning", _REASON)
        self._told = True

    def install(self) -> None:
        if self._was_on:
            self.tell()
        for module in self._was_on:
            module.gradient_checkpointing = False
        for name in _SWITCHES:
            if hasattr(self.model, name):
                setattr(self.model, name, _Ignored(self, name))
        if hasattr(self.model, _INPUT_GRADIENTS):
            if self.had_input_gradients:
                self.model.disable_input_require_grads()
            setattr(self.model, _INPUT_GRADIENTS, _InputGradientsLater(self, _INPUT_GRADIENTS))

    def undo(self) -> None:
        for name in _SWITCHES:
            if isinstance(self.model.__dict__.get(name), _Ignored):
                delattr(self.model, name)
        if isinstance(self.model.__dict__.get(_INPUT_GRADIENTS), _InputGradientsLater):
            delattr(self.model, _INPUT_GRADIENTS)
            if self.had_input_gradients:
                self.model.enable_input_require_grads()
        for module in self._was_on:
            module.gradient_checkpointing = True
