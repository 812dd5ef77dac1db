"""Ebbtide's numbers in the logs of Hugging Face's Trainer."""

from __future__ import annotations

from typing import Any

import transformers


class TrainerCallback(transformers.TrainerCallback):  # type: ignore[misc]  # transformers has no types here
    """Adds `ebbtide.stats().scalars()` to everything that the Trainer logs.

    `Trainer(callbacks=[ebbtide.TrainerCallback()])` reaches the console and the log history. TensorBoard, W&B and the
    like come before the callbacks of the user: `ebbtide.TrainerCallback.add_to(trainer)` comes before them.
    Without EBBTIDE=1 it adds nothing.
    """

    @classmethod
    def add_to(cls, trainer: transformers.Trainer) -> None:
        """Makes it the first callback of the trainer."""
        trainer.callback_handler.callbacks.insert(0, cls())

    def on_log(
        self,
        args: transformers.TrainingArguments,
        state: transformers.TrainerState,
        control: transformers.TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        from . import is_active, stats

        if not is_active() or logs is None:
            return
        scalars = stats().scalars()
        logs.update(scalars)
        if state.log_history:  # the Trainer has put the same numbers there already
            state.log_history[-1].update(scalars)
