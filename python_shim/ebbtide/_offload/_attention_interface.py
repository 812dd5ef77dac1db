"""Where Hugging Face models call their attention: the one place at which a layer is cut.

Every model of transformers asks `AttentionInterface.get_interface` for its attention function at each
call. While a cut layer runs on this thread, the answer is a function that tells the cut what was
asked for. The model's configuration is not touched, so masks are made for the attention it names.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch

# (resolved attention function, attention module, q, k, v, positional rest, named rest) -> its result
Intercept = Callable[..., Any]


class _Thread(threading.local):
    intercept: Intercept | None = None


_thread = _Thread()


@contextlib.contextmanager
def intercepted(intercept: Intercept | None) -> Iterator[None]:
    """Attention that models on this thread ask for in the block is answered by `intercept`; None: by itself."""
    outer, _thread.intercept = _thread.intercept, intercept
    try:
        yield
    finally:
        _thread.intercept = outer


def _wrap(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def get_interface(self: Any, attn_implementation: str, default: Callable[..., Any]) -> Any:
        function = original(self, attn_implementation, default)
        intercept = _thread.intercept
        return function if intercept is None else functools.partial(intercept, function)

    get_interface.ebbtide_original = original  # type: ignore[attr-defined]
    return get_interface


def install() -> None:
    """Stand in front of transformers' look-up. Idempotent; without transformers it does nothing."""
    if "transformers" not in sys.modules:
        return
    from transformers.modeling_utils import AttentionInterface

    if not hasattr(AttentionInterface.get_interface, "ebbtide_original"):
        AttentionInterface.get_interface = _wrap(AttentionInterface.get_interface)


def is_decoder_layer(module: torch.nn.Module) -> bool:
    """Whether transformers treats this module as one layer of a stack."""
    if "transformers" not in sys.modules:
        return False
    from transformers.modeling_layers import GradientCheckpointingLayer

    return isinstance(module, GradientCheckpointingLayer)


Captured = dict[str, list[Any]]


def captured_outputs() -> Captured:
    """What the running model's caller asked modules inside of layers to tell, e.g. router logits, so far."""
    if "transformers" not in sys.modules:
        return {}
    from transformers.utils.output_capturing import _active_collector

    asked = _active_collector.get() or {}
    return {name: told for name, told in asked.items() if "hidden_states" not in name}


@contextlib.contextmanager
def captured_apart(names: Iterable[str]) -> Iterator[Captured]:
    """What modules tell in the block comes here alone."""
    from transformers.utils.output_capturing import _active_collector

    told: Captured = {name: [] for name in names}
    outer = _active_collector.set(told)
    try:
        yield told
    finally:
        _active_collector.reset(outer)
