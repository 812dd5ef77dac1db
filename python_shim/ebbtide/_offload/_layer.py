"""The layers of a model, cut into pieces: `wrap_layers`."""

from __future__ import annotations

import weakref

import torch

from .._errors import EbbtideError
from ._attention_interface import install
from ._device_stores import Stores
from ._layer_cut import CutLayer
from ._layer_find import find_layers
from ._layer_function import measure_references
from ._layer_shared import Policies, Shared
from ._layer_tally import Tally
from ._options import Options
from ._peak import Peak
from ._pieces import Form
from ._spare import Spare
from ._store import Store


class LayerCuts:
    """The cut layers of one model."""

    def __init__(self, layers: list[CutLayer], shared: Shared) -> None:
        self._layers, self.shared = layers, shared

    def undo(self) -> None:
        """Give every layer its own forward back. Idempotent. Graphs that wait for backward still can."""
        for layer in self._layers:
            layer.tally.trace()
            layer.take_out()
        self._layers = []

    def refuse_packed(self) -> None:
        """EbbtideError, under options.strict, for a layer that learns and of which it is known that it cannot be cut."""
        for layer in self._layers:
            layer.refuse_packed()

    def counts(self) -> list[Tally]:
        """One for each layer, in order; they go on counting."""
        return [layer.tally for layer in self._layers]

    def form(self, batch: int, tokens: int) -> Form:
        """How an input of this shape is run."""
        if not self._layers:
            return Form()
        cut = (layer for layer in self._layers if layer.tally.whole_because is None)
        return next(cut, self._layers[0]).form(batch, tokens)

    def treat_whole(self, name: str, reason: str) -> None:
        """Do not cut the layer of this name any more. EbbtideError under options.strict."""
        for layer in self._layers:
            if layer.tally.name == name:
                layer.treat_whole(reason)


def wrap_layers(
    model: torch.nn.Module,
    options: Options,
    store: Store | Stores,
    policies: Policies | None = None,
    spare: Spare | None = None,
    peak: Peak | None = None,
) -> LayerCuts:
    """Cut every layer of `model` at its attention; from now on their forwards run in pieces.

    Layers are found in the order of named_modules(): those of transformers' models, and modules that offer
    before_attention, attention and after_attention (see _cut.py). `store`, or that of a layer's device,
    takes what is swapped; the last options.keep_last layers save on the device. `policies`, if given, decides instead of
    options.alpha what becomes of each piece. `spare` is the model's, if somebody has asked it before, and `peak` is told when a backward ends. Raises EbbtideError if no layer is found.
    """
    found = find_layers(model)
    if not found:
        raise EbbtideError(
            f"{type(model).__name__}: no layer was found that can be cut; offload takes models of "
            "transformers, and modules with before_attention, attention and after_attention"
        )
    install()
    measure_references()
    stores = store if callable(store) else lambda _: store
    shared = Shared(options, stores, policies, spare or Spare(model), list(map(weakref.ref, found.values())), peak)
    layers = [
        CutLayer(layer, index, name, shared) for index, (name, layer) in enumerate(found.items())
    ]
    for layer in layers:
        layer.put_in()
    return LayerCuts(layers, shared)
