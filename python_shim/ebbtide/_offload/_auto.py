"""EBBTIDE_OFFLOAD: offload for Hugging Face models in programs that say nothing of it.

A causal language model is offloaded at its first forward in training: by then it has its adapters,
its precision and its place, and is wrapped in whatever distributes it. A model that the program
itself has called ebbtide.offload for is left to the program.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

_MODULE = "transformers.modeling_utils"


def install() -> None:
    """Raises EbbtideError for a setting that is wrong. Call it once."""
    from ._environment import device_budget, host_budget, offload_share

    share = offload_share()
    device_budget(), host_budget()
    if share is None:
        return
    if _MODULE in sys.modules:
        _watch(sys.modules[_MODULE], share)
    else:
        sys.meta_path.insert(0, _WhenImported(lambda module: _watch(module, share)))


class _WhenImported(importlib.abc.MetaPathFinder):
    """Calls `then(module)` once, after the module has been imported."""

    def __init__(self, then: Callable[[ModuleType], None]) -> None:
        self._then = then

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != _MODULE:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            load, then = spec.loader.exec_module, self._then

            def exec_module(module: ModuleType) -> None:
                load(module)
                then(module)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


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
