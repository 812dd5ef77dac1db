"""EBBTIDE_OFFLOAD: offload for Hugging Face models in programs that say nothing of it.

A causal language model is offloaded at its first forward in training: by then it has its adapters,
its precision and its place, and is wrapped in whatever distributes it. A model that the program
itself has called ebbtide.offload for is left to the program.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

from .._when_imported import when_imported

_MODULE = "transformers.modeling_utils"


def install() -> None:
    """Raises EbbtideError for a setting that is wrong. Call it once."""
    from ._environment import device_budget, host_budget, offload_share

    share = offload_share()
    device_budget(), host_budget()
    if share is None:
        return
    when_imported(_MODULE, lambda module: _watch(module, share))


def _watch(module: ModuleType, share: float | str) -> None:
    """From now on models of transformers are looked at when they are called."""
    import torch

    base: Any = module.PreTrainedModel

    def __call__(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.training and torch.is_grad_enabled() and not torch.compiler.is_compiling():
            _consider(self, share)
        return super(base, self).__call__(*args, **kwargs)

    base.__call__ = __call__


def _consider(model: Any, share: float | str) -> None:
    from ._api import DECIDED, offload
    from ._causal_lm import find_causal_lm

    if DECIDED in model.__dict__:
        return
    if find_causal_lm(model) is model:
        offload(model, alpha=share)
    else:
        setattr(model, DECIDED, True)  # a part of a model, such as its decoder
