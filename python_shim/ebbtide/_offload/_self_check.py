"""Runs a model on a few tokens, as it is and cut into pieces, and compares loss and gradients."""

from __future__ import annotations

import contextlib
import dataclasses
import statistics
from collections.abc import Iterator
from typing import Any, Protocol

import torch

from .._errors import EbbtideError, one_line
from ._head import HeadCut
from ._simulation import is_simulated

BATCHES, TOKENS, PIECE = 2, 11, 4  # the last piece is shorter, and pieces cross batches
_LARGEST = 1 << 16  # elements of a parameter whose gradient is compared
_ROUTING = 5  # times the tolerance where tokens are routed
# What different shapes of matrix products may change, relative to the norm. float64 is float32's:
# transformers computes its loss in float32.
_TOLERANCE = {torch.float64: 1e-5, torch.float32: 1e-3, torch.float16: 3e-2, torch.bfloat16: 6e-2}


class Cut(Protocol):
    """A change of a model that can be made and taken back."""

    def install(self) -> None: ...
    def undo(self) -> None: ...


@dataclasses.dataclass(frozen=True)
class Sample:
    """What a few tokens give: the loss, and gradients by name."""

    loss: torch.Tensor
    gradients: dict[str, torch.Tensor]
    tolerance: float
    autocast: torch.dtype | None = None  # it ran under that

    def difference(self, other: Sample) -> str:
        """What differs most, in words; empty if nothing does by more than the tolerance."""
        if not torch.isfinite(other.loss):
            return f"the loss is {other.loss.item()}"
        pairs = {"the loss": (self.loss, other.loss)}
        for name, gradient in self.gradients.items():
            if name not in other.gradients:
                return f"{name} got no gradient"
            pairs[f"the gradient of {name}"] = (gradient, other.gradients[name])
        least = self.tolerance * statistics.median(_size(expected) for expected, _ in pairs.values())
        worst, name = max((_distance(*pair, least), name) for name, pair in pairs.items())
        return f"{name} differs by {100 * worst:.2g} %" if worst > self.tolerance else ""


def _size(tensor: torch.Tensor) -> float:
    """Of a typical element."""
    return float(tensor.double().norm().item() / max(tensor.numel(), 1) ** 0.5)


def _distance(expected: torch.Tensor, found: torch.Tensor, least: float) -> float:
    """Relative to the expected values, or to `least` where these are smaller: then they are rounding
    themselves (attention does not depend on the bias of its keys, whose gradient is nothing else)."""
    scale = max(_size(expected), least)
    return _size(found.double() - expected.double()) / (scale or 1.0)


def _devices(model: torch.nn.Module) -> set[str]:
    return {parameter.device.type for parameter in model.parameters()}


def cannot_be_checked(model: torch.nn.Module) -> bool:
    """Before there are values."""
    return "meta" in _devices(model)


def _means_nothing(model: torch.nn.Module) -> bool:
    """On a simulated device no value is computed: what can be seen there is whether the model runs."""
    return "cuda" in _devices(model) and is_simulated()


def check(model: Any, reference: Sample, cut: Cut) -> str:
    """Why the model computes something else with this cut; empty if it does not.

    The cut is made for this call alone.
    """
    try:
        cut.install()
        found = sample(model, reference.autocast)
    except Exception as error:  # noqa: BLE001 - whatever stops a cut model is the reason
        return str(error) if isinstance(error, EbbtideError) else f"{type(error).__name__}: {error}"
    finally:
        cut.undo()
    return "" if _means_nothing(model) else reference.difference(found)


def reference(model: Any) -> Sample:
    """What the model computes as it is. One of mixed precision may work under autocast alone.

    Raises EbbtideError for a model that fails on its own.
    """
    try:
        return sample(model)
    except Exception as error:  # noqa: BLE001 - of other inputs than tokens, say, that it misses
        first = error
    try:
        return sample(model, torch.bfloat16)
    except Exception:  # noqa: BLE001 - whatever it is, the model as it was written has failed
        raise EbbtideError(
            f"{type(model).__name__} cannot be checked: before anything was changed in it, it fails on "
            f"{TOKENS} tokens: {one_line(first)}"
        ) from first


def sample(model: Any, autocast: torch.dtype | None = None) -> Sample:
    """One forward and backward pass in evaluation mode. No gradient is accumulated anywhere."""
    inputs = _few_tokens(model)
    device = inputs["labels"].device
    by_pieces = {"skip_logits": True} if isinstance(model.forward, HeadCut) else {}
    with (
        _evaluating(model),
        torch.enable_grad(),
        torch.autocast(device.type, dtype=autocast, enabled=autocast is not None),
        torch.random.fork_rng([device] if device.type == "cuda" else []),
        _Watched(model) as watched,
    ):
        loss = model(**inputs, use_cache=False, **by_pieces).loss
        wanted = _small_parameters(model)
        if watched.embedded is not None:  # some models (BART) call others than those that they name
            wanted = {"the embeddings": watched.embedded, **wanted}
        found = torch.autograd.grad(loss, list(wanted.values()), allow_unused=True)
    pairs = zip(wanted, found, strict=True)
    gradients = {name: gradient for name, gradient in pairs if gradient is not None}
    return Sample(loss.detach(), gradients, _tolerance(model, autocast or watched.precision), autocast)


def _few_tokens(model: Any) -> dict[str, torch.Tensor]:
    words = model.config.get_text_config().vocab_size
    device = model.get_input_embeddings().weight.device
    ids = torch.arange(BATCHES * TOKENS, device=device).mul(7).remainder(words)
    ids = ids.view(BATCHES, TOKENS)
    labels = ids.clone()
    labels[0, :3] = -100
    return {"input_ids": ids, "labels": labels}


class _Watched:
    """While it is open: gradients begin at the embeddings, and the head's precision is noted."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self.embedded: Any = None
        self.precision = torch.float64

    def __enter__(self) -> _Watched:
        self._hooks = [
            self._model.get_input_embeddings().register_forward_hook(self._start_here),
            self._model.get_output_embeddings().register_forward_hook(self._note),
        ]
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _start_here(self, _: Any, __: Any, output: torch.Tensor) -> torch.Tensor:
        self.embedded = output.detach().requires_grad_()
        return self.embedded.clone()  # type: ignore[no-any-return]  # which the model may change in place

    def _note(self, _: Any, __: Any, output: torch.Tensor) -> None:
        self.precision = output.dtype


def _tolerance(model: Any, precision: torch.dtype) -> float:
    """Of the least precise of parameters and results (which autocast may make less precise)."""
    precisions = {precision, *(parameter.dtype for parameter in model.parameters())}
    tolerance = max(_TOLERANCE.get(one, 0.0) for one in precisions)
    routes = any("expert" in name for name, _ in model.named_modules())
    # A rounding may send a token to another expert, with another result altogether.
    return tolerance * (_ROUTING if routes else 1)


def _small_parameters(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Norms, biases, adapters: enough to see that sums over pieces are right."""
    return {
        name: parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
        and type(parameter) is torch.nn.Parameter
        and parameter.numel() <= _LARGEST
        and not hasattr(parameter, "full_tensor")  # sharded: gathered only inside of a forward
    }


@contextlib.contextmanager
def _evaluating(model: torch.nn.Module) -> Iterator[None]:
    """No dropout, whose random numbers pieces draw in another order."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
