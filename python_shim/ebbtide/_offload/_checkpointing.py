"""Activation checkpointing of transformers, which offload makes needless, and would do twice."""

from __future__ import annotations

from typing import Any

from .._errors import EbbtideError, print_line

_SWITCHES = ("activation_checkpointing_enable", "gradient_checkpointing_enable")
_INPUT_GRADIENTS = "enable_input_require_grads"
_REASON = (
    "activation checkpointing is left off: ebbtide.offload recomputes by itself, without attention; "
    "remove gradient_checkpointing, or use ebbtide.offload(model, off=True) to have it back"
)


class _Ignored:
    """In the place of a method that would switch checkpointing on."""

    def __init__(self, owner: CheckpointingOff) -> None:
        self._owner = owner

    def __call__(self, *_: Any, **__: Any) -> None:
        self._owner.tell()


class _InputGradientsLater:
    """In the place of `enable_input_require_grads`, which undo() calls then.

    Adapters ask for gradients of embeddings because checkpointing's inputs must need some. Cut layers
    need none, and the embeddings would be kept until the end of backward for it.
    """

    def __init__(self, owner: CheckpointingOff) -> None:
        self._owner = owner

    def __call__(self) -> None:
        self._owner.had_input_gradients = True


class CheckpointingOff:
    """Switches a model's activation checkpointing off until undo(), and says so once."""

    def __init__(self, model: Any, strict: bool) -> None:
        self._model = model
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
            if hasattr(self._model, name):
                setattr(self._model, name, _Ignored(self))
        if hasattr(self._model, _INPUT_GRADIENTS):
            if self.had_input_gradients:
                self._model.disable_input_require_grads()
            setattr(self._model, _INPUT_GRADIENTS, _InputGradientsLater(self))

    def undo(self) -> None:
        for name in _SWITCHES:
            if isinstance(self._model.__dict__.get(name), _Ignored):
                delattr(self._model, name)
        if isinstance(self._model.__dict__.get(_INPUT_GRADIENTS), _InputGradientsLater):
            delattr(self._model, _INPUT_GRADIENTS)
            if self.had_input_gradients:
                self._model.enable_input_require_grads()
        for module in self._was_on:
            module.gradient_checkpointing = True
