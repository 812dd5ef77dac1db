"""Adapters on frozen models: the embeddings' output, which only checkpointing wants to have gradients."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed here")
pytest.importorskip("transformers", reason="transformers is not installed here")

import offload_models as om  # noqa: I001 - makes ebbtide importable
import ebbtide


@pytest.fixture
def model():
    """Frozen, but for the layers' norms."""
    made = om.make("llama", torch.float32).requires_grad_(False)
    for layer in om.layers_of(made):
        layer.input_layernorm.requires_grad_(True)
    return made


def embeddings_need_gradients(model) -> bool:
    return model.get_input_embeddings()(om.tokens(5)).requires_grad


@pytest.mark.parametrize("asked", ["before", "after"])
def test_embeddings_need_no_gradient_while_layers_are_cut(model, asked):
    expected = om.gradients(model, om.tokens(50))
    if asked == "before":
        model.enable_input_require_grads()
    ebbtide.offload(model, mini_sequence=16, keep_last=0, alpha=0.5)
    if asked == "after":
        model.enable_input_require_grads()
    assert not embeddings_need_gradients(model)
    assert om.worst_error(om.gradients(model, om.tokens(50)), expected) <= 1e-4
    ebbtide.offload(model, off=True)
    assert embeddings_need_gradients(model)


def test_who_asked_for_none_gets_none(model):
    ebbtide.offload(model)
    ebbtide.offload(model, off=True)
    assert not embeddings_need_gradients(model)
    assert "enable_input_require_grads" not in model.__dict__
