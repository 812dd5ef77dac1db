"""A causal language model's `forward` while its head and loss run over pieces of tokens."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import nn

from .._errors import EbbtideError, print_line
from . import _causal_lm
from ._head_call import HeadCall
from ._head_run import HeadRun
from ._options import Options
from ._pickling import Unpickled, former_attribute
from ._piece_size import head_piece
from ._pieces import Form, cut
from ._spare import Spare

_WHOLE_LOGITS = (
    "the model was called in training without labels: whole logits are made, for a loss that is "
    "computed outside of it. For label smoothing use ebbtide.offload(model, label_smoothing=...)"
)
_NO_CACHE = (
    "use_cache=True is ignored in training: ebbtide.offload keeps no cache of keys and values; "
    "call the model with use_cache=False"
)
_DOCUMENTS = (
    "position_ids begin anew inside of a row, and there is no attention_mask: documents are kept apart, as "
    "transformers does with use_cache=False. With its default, use_cache=True, tokens see the documents before "
    "theirs, and without ebbtide.offload the loss is another one; pass use_cache=False there, too"
)


class HeadCut(Unpickled):
    """Takes the place of a causal language model's `forward`; install() and undo().

    A call is cut if it has labels and no one needs its logits (HeadCall.is_cut); any other call is
    the class's own, unchanged. Not for calls of one model from several threads at once.
    """

    def __init__(
        self, model: Any, options: Options, defer_norm: bool = True, spare: Spare | None = None
    ) -> None:
        self.model = model
        self.options = options
        self.enabled = False
        self._spare = spare or Spare(model)
        self.calls = 0  # that were cut
        self._told: set[str] = set()  # lines that were printed
        self._has_seen_positions = False  # reading them waits for the device: once is enough
        place = _causal_lm.base_place(model)
        assert place is not None  # or it would be no causal language model
        self.base_place = place  # the module that holds the base model, and its name there
        self.norm = _causal_lm.final_norm_name(self.base()) if defer_norm else None
        # An instance's forward of somebody else (autocast, patches); without one, the class's.
        self._inner = model.__dict__.get("forward")
        # What looks at the signature (Trainer: to choose columns) is to see the model's own.
        self.__signature__ = inspect.signature(model.forward)

    def install(self) -> None:
        self.model.forward = self
        self.enabled = True

    def undo(self) -> None:
        """Back to what was. If somebody has wrapped this since, it stays there and does nothing."""
        self.enabled = False
        if self.model.__dict__.get("forward") is not self:
            return
        if self._inner is None:
            del self.model.forward
        else:
            self.model.forward = self._inner

    def stand_in(self) -> Any:
        return former_attribute(self.model, "forward", self._inner)

    @torch.compiler.disable
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        call = HeadCall.of(self.model, self.options, self.__signature__, args, kwargs)
        if not self.enabled:
            return self.forward(*args, **kwargs)
        if call.asks_for_cache and self.options.strict:
            raise EbbtideError(_NO_CACHE)
        if call.asks_for_cache:
            self._tell(_NO_CACHE)
        if call.has_no_labels:
            self._tell(_WHOLE_LOGITS)
        if call.positions is not None and not self._has_seen_positions:
            self._has_seen_positions = True
            if bool((call.positions.diff() != 1).any()):
                self._tell(_DOCUMENTS)
        if not call.is_cut:
            return self.forward(*args, **call.passed_on(kwargs))
        output = HeadRun(self, call).output(args, call.passed_on(kwargs))
        self.calls += 1
        return output

    def form(self, batch: int, tokens: int) -> Form:
        """How an input of this shape is run."""
        weight = self.model.get_output_embeddings().weight
        words, width = weight.shape
        piece = self.piece(batch * tokens, words, width, weight.element_size(), weight.device)
        return Form.of(cut(batch * tokens, piece))

    def piece(self, tokens: int, words: int, width: int, itemsize: int, device: torch.device) -> int:
        """Tokens of a piece of so many."""
        wished = self.options.mini_sequence
        return head_piece(words, width, itemsize, device, wished, tokens, self._spare.bytes_on(device))

    def _tell(self, reason: str) -> None:
        if reason not in self._told:
            print_line("warning", reason)
        self._told.add(reason)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The forward that this stands in front of."""
        if self._inner is not None:
            return self._inner(*args, **kwargs)
        return type(self.model).forward(self.model, *args, **kwargs)

    def deferred_norm(self) -> str | None:
        """The final norm if it runs with the pieces. It does not where somebody looks at what the base model gives
        back: a hook is to see normed states. Those of FSDP look at none."""
        hooks = self.base()._forward_hooks.values()
        is_seen = any(not str(getattr(hook, "__module__", "")).startswith("torch.distributed") for hook in hooks)
        return None if is_seen else self.norm

    def head_modules(self, norm: str | None) -> list[nn.Module]:
        """Everything but the base model; of that, its final norm if it has a name here."""
        base = self.base()
        inside = set(base.modules())
        outside = [module for module in self.model.modules() if module not in inside]
        return outside + (list(base._modules[norm].modules()) if norm else [])

    def base(self) -> Any:
        holder, name = self.base_place
        return holder._modules[name]
