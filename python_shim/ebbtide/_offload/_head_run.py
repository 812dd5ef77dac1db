"""The LM head and the loss of a Hugging Face causal language model over pieces of tokens.

Note [Cutting a class's own forward]
The class's forward runs once, unmodified, with two of its parts exchanged for the time of the call:
the base model gives back no token at all (its hidden states are kept aside), and the loss function,
which the class then calls with whatever arguments it makes of its own, computes the loss over
pieces of the hidden states. For each piece the class's forward runs again, the base model giving
back just that piece: so scaling, soft caps, adapters and casts of logits are the class's own, for
any architecture. The final norm is row-wise and can cost more than all the rest when it runs over
whole sequences in float32, so it runs with the pieces, too.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from . import _causal_lm
from ._absent_logits import AbsentLogits
from ._head_call import HeadCall
from ._loss import ModelLoss, Targets, TokenLoss
from ._piecewise_loss import PieceOfHead, PiecewiseLoss

if TYPE_CHECKING:
    from ._head import HeadCut


class _Answer(nn.Module):
    """Stands where a model's part stands, and answers for it. Its plain values (scales) are the part's, too:
    not what may hold weights, whose gradient would be lost, since pieces know of the head's alone."""

    def __init__(self, answer: Any, part: nn.Module) -> None:
        super().__init__()
        self.answer = answer
        self._part = (part,)  # no submodule: its parameters are not this one's

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.answer(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.__dict__["_part"][0], name)
        if callable(value) or torch.is_tensor(value):
            raise AttributeError(f"the head asks for {name} of the model below it")
        return value


@contextlib.contextmanager
def _exchanged(table: dict[str, Any], name: str, value: Any) -> Iterator[None]:
    previous = table[name]
    table[name] = value
    try:
        yield
    finally:
        table[name] = previous


class HeadRun:
    """One cut call: what is known of it while the class's forward runs."""

    def __init__(self, cut: HeadCut, call: HeadCall) -> None:
        self._cut = cut
        self._call = call
        self._base = cut.base()
        self._norm_name = cut.deferred_norm()
        self._norm = self._base._modules[self._norm_name] if self._norm_name else None
        self._owned = _causal_lm.owned_parameters(cut.head_modules(self._norm_name))
        self._hidden: Any = None
        self._output_type: Any = None
        self._loss_was_asked_for = False

    def output(self, args: Any, kwargs: Any) -> Any:
        model = self._cut.model
        own_loss = model.__dict__.get("_loss_function")
        self._model_loss = model.loss_function
        try:
            model._loss_function = self._loss
            with self._exchanged_base(self._run_base):
                output = self._cut.forward(*args, **kwargs)
        finally:
            if own_loss is None:
                del model._loss_function
            else:
                model._loss_function = own_loss
        if not self._loss_was_asked_for:
            raise RuntimeError(f"{type(model).__name__}.forward did not call its loss_function")
        output["logits"] = AbsentLogits()
        return output if self._call.return_dict else output.to_tuple()

    def _exchanged_base(self, answer: Any) -> contextlib.AbstractContextManager[None]:
        holder, name = self._cut.base_place
        return _exchanged(holder._modules, name, _Answer(answer, self._base))

    def _run_base(self, *args: Any, **kwargs: Any) -> Any:
        """The real base model without its final norm; the class's forward sees an empty sequence."""
        with contextlib.ExitStack() as stack:
            if self._norm_name:
                stack.enter_context(_exchanged(self._base._modules, self._norm_name, nn.Identity()))
            output = self._base(*args, **kwargs)
        self._hidden = output.last_hidden_state
        self._output_type = type(output)
        batch, _, width = self._hidden.shape
        output.last_hidden_state = self._hidden.new_empty((batch, 0, width))
        return output

    def _loss(self, logits: Any, labels: Any, vocab_size: Any = None, **kwargs: Any) -> Any:
        """In the place of the model's loss function, with its arguments. `logits` are empty."""
        self._loss_was_asked_for = True
        hidden, self._hidden = self._hidden, None
        items = kwargs.pop("num_items_in_batch", None)
        shifted = kwargs.pop("shift_labels", None)
        ignore_index = kwargs.get("ignore_index", -100)
        targets = Targets.of(labels, shifted, items, ignore_index, hidden.device)
        head = PieceOfHead(
            self._logits, self._token_loss(vocab_size, ignore_index, kwargs), self._tokens(logits, hidden)
        )
        total = PiecewiseLoss.apply(head, hidden, targets.labels, *self._parameters())
        return total / targets.divisor

    def _token_loss(self, vocab_size: Any, ignore_index: int, kwargs: Any) -> Any:
        options = self._cut.options
        if options.label_smoothing or options.z_loss or _is_standard(self._model_loss):
            return TokenLoss(ignore_index, options.label_smoothing, options.z_loss)
        return ModelLoss(self._model_loss, {"vocab_size": vocab_size, **kwargs})

    def _tokens(self, logits: torch.Tensor, hidden: torch.Tensor) -> int:
        words, width = logits.shape[-1], hidden.shape[-1]
        tokens = hidden.numel() // max(width, 1)
        return self._cut.piece(tokens, words, width, logits.element_size(), hidden.device)

    def _parameters(self) -> list[nn.Parameter]:
        """Each trainable parameter of the head once, however many modules hold it."""
        return list(dict.fromkeys(parameter for _, _, parameter in self._owned))

    def _logits(self, rows: torch.Tensor, parameters: Sequence[torch.Tensor]) -> torch.Tensor:
        """The class's own logits of some rows, with `parameters` in the place of its own."""
        model = self._cut.model
        stand_in = dict(zip(self._parameters(), parameters, strict=True))
        with contextlib.ExitStack() as stack:
            for module, name, parameter in self._owned:
                stack.enter_context(_exchanged(module._parameters, name, stand_in[parameter]))
            piece = rows.unsqueeze(0)
            if self._norm is not None:
                piece = self._norm(piece)
            answer = self._output_type(last_hidden_state=piece)
            stack.enter_context(self._exchanged_base(lambda *_, **__: answer))
            output = self._cut.forward(**self._call.for_logits_of(piece))
        return output.logits.squeeze(0)


def _is_standard(function: Any) -> bool:
    from transformers.loss.loss_utils import ForCausalLMLoss

    return function is ForCausalLMLoss
