"""A layer that cannot be cut: its input is saved, and all of it runs again in backward.

What its own forward would save is measured once for each longest call: where the device has room, the layer keeps that
(_layer_cut.py), and then its own forward runs, with nothing of this around it.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.utils._pytree import tree_flatten, tree_unflatten

from ._attention_interface import captured_apart, captured_outputs
from ._layer_ambient import AttentionBackends, Autocast, Parameters, RandomStates
from ._layer_record import Returning, SavedRows
from ._layer_room import has_room
from ._layer_saving import Recorder, storage_of
from ._layer_tally import Tally
from ._layer_tape import Tape, run_as_in_training
from ._length import Length
from ._native_saving import Externals
from ._peak import Peak
from ._store import Store, Witness


class WholeRecord:
    """One call of such a layer: its arguments, the input's place among them, and the store's copy of it."""

    def __init__(
        self, forward: Callable[..., Any], parameters: Parameters, x: torch.Tensor, arguments: Any, tally: Tally
    ) -> None:
        self._forward, self.parameters, self._tally = forward, parameters, tally
        self._length = Length.of(x)
        self._leaves, self._tree = tree_flatten(arguments)
        self._places = [
            place
            for place, leaf in enumerate(self._leaves)
            if leaf is x or (isinstance(leaf, torch.Tensor) and leaf.requires_grad)
        ]
        self._x_place = next(place for place in self._places if self._leaves[place] is x)
        self.inputs = [self._leaves[place] for place in self._places]
        self._leaves[self._x_place] = None
        self.x: SavedRows | None = None
        self.previous: weakref.ref[Returning] | None = None  # the layer whose backward comes next
        self.peak: Peak | None = None  # of the first layer, with which a backward ends
        self._witness = Witness(x, "the input of a layer")
        self._autocast = Autocast(x.device)
        self._backends: AttentionBackends | None = None
        self._random = RandomStates(x.device)
        self._state = self._random.now()
        self.output_tree: Any = None
        self.constants: list[Any] = []

    def forward(self, store: Store, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        self.x = SavedRows.of(store, inputs[self._places.index(self._x_place)])
        self.inputs = []
        with self.parameters.stood_in(), self._autocast.again():
            found = run_as_in_training(lambda *tensors: self._run(tensors), *inputs)
        self._backends = AttentionBackends()
        return found

    def _run(self, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        leaves = list(self._leaves)
        for place, tensor in zip(self._places, inputs, strict=True):
            leaves[place] = tensor
        args, kwargs = tree_unflatten(leaves, self._tree)
        found, self.output_tree = tree_flatten(self._forward(*args, **kwargs))
        self.constants = [None if isinstance(leaf, torch.Tensor) else leaf for leaf in found]
        self._is_tensor = [isinstance(leaf, torch.Tensor) for leaf in found]
        return tuple(leaf for leaf in found if isinstance(leaf, torch.Tensor))

    def outputs(self, tensors: tuple[torch.Tensor, ...]) -> Any:
        """What the layer returns, from the tensors in it."""
        remaining = iter(tensors)
        leaves = [
            next(remaining) if is_tensor else constant
            for is_tensor, constant in zip(self._is_tensor, self.constants, strict=True)
        ]
        return tree_unflatten(leaves, self.output_tree)

    @property
    def used(self) -> bool:
        return self.x is None

    def prefetch(self) -> None:
        if self.x is not None:
            self.x.saved.prefetch()

    def first_bytes(self) -> int:
        return 0 if self.x is None else self.x.saved.size_bytes

    prefetch_all, all_bytes = prefetch, first_bytes

    def _fetch_previous(self, x: torch.Tensor) -> None:
        """What the layer before begins with, while this one runs, if there is room: behind it there is nothing that
        could hide its copy."""
        previous = self.previous() if self.previous is not None else None
        if previous is not None and not previous.used and has_room(x, previous.first_bytes()):
            previous.prefetch()

    def backward(self, gradients: tuple[torch.Tensor | None, ...]) -> list[torch.Tensor | None]:
        if self.x is None or self._backends is None:
            raise RuntimeError(
                "backward through an offloaded layer a second time (retain_graph=True): its saved input "
                "is gone after the first. Add the losses and call backward once"
            )
        self.parameters.check()
        self._witness.check()
        saved, self.x = self.x, None
        inputs = [
            saved.get() if place == self._x_place else self._leaves[place].detach()
            for place in self._places
        ]
        x = inputs[self._places.index(self._x_place)]
        self._fetch_previous(x)
        with self._random.undisturbed(), self.parameters.stood_in(), self._autocast.again():
            self._random.set(self._state)
            with self._backends.again():
                tape = self._again(inputs)
            of_inputs, of_parameters = tape.gradients(gradients, self.parameters.stand_ins)
        saved.saved.release()
        self._leaves = []  # who keeps the loss keeps this record, but no mask
        if self.peak is not None:
            self.peak.note_backward(x.device)
        return [*of_inputs, *of_parameters]

    def _again(self, inputs: list[torch.Tensor]) -> Tape:
        tally = self._tally
        recorder = None
        with contextlib.ExitStack() as hooks:
            if self._length.pairs > tally.whole_length.pairs:
                recorder = Recorder(Externals(map(storage_of, self.parameters.originals)))
                hooks.enter_context(recorder.hooks())
            tape, _ = Tape.record(lambda *tensors: self._run(tensors), *inputs)
        if recorder is not None:
            tally.tell_whole(recorder.measure(()), self._length)
        tally.recomputed_bytes += tally.whole_bytes_at(self._length.rows)
        return tape


class WholeFunction(torch.autograd.Function):
    """apply(record, store, *inputs, *parameters) -> the tensors that the layer returns."""

    @staticmethod
    def forward(
        ctx: Any, record: WholeRecord, store: Store, *tensors: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        ctx.record = record
        ctx.set_materialize_grads(False)
        return record.forward(store, tensors[: len(record.inputs)])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor | None) -> Any:
        return None, None, *ctx.record.backward(gradients)


def run_whole(
    forward: Callable[..., Any],
    layer: torch.nn.Module,
    store: Store,
    x: torch.Tensor,
    arguments: tuple[tuple[Any, ...], dict[str, Any]],
    tally: Tally,
    link: Callable[[WholeRecord], None],
) -> Any:
    """The layer's result. `x` is one of the arguments. `link` is told of the call before it runs."""
    outer = captured_outputs()
    record = WholeRecord(_telling(forward, list(outer)), Parameters(layer), x, arguments, tally)
    link(record)
    tensors = WholeFunction.apply(record, store, *record.inputs, *record.parameters.originals)
    result, told = record.outputs(tensors)
    for name, values in told.items():
        outer[name].extend(values)
    return result


def _telling(forward: Callable[..., Any], names: Sequence[str]) -> Callable[..., Any]:
    """`forward`, which also returns what modules inside of it were asked to tell, e.g. router logits: so
    gradients flow back from it, and backward, in which nobody asks, finds the same outputs."""

    def tell(*args: Any, **kwargs: Any) -> tuple[Any, dict[str, list[Any]]]:
        if not names:
            return forward(*args, **kwargs), {}
        with captured_apart(names) as told:
            return forward(*args, **kwargs), told

    return tell
