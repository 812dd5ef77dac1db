"""A module with several models in it: a policy and its reference, two that learn, one beside an encoder."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed here")
pytest.importorskip("transformers", reason="transformers is not installed here")

import ebbtide
import offload_models as om
from conftest import our_lines
from ebbtide import EbbtideError
from ebbtide._offload import _offloaded
from ebbtide._offload._offloaded import all_offloaded_of, offloaded_of
from ebbtide._offload._spare import Spare

pytestmark = pytest.mark.usefixtures("native")
PIECES = {"mini_sequence": 16, "alpha": 0.5}


class Pair(torch.nn.Module):
    """Two language models; the loss is of both."""

    def __init__(self, first="llama", second="qwen3", frozen=None):
        super().__init__()
        self.first, self.second = om.make(first, torch.float32), om.make(second, torch.float32)
        for one in (self.first, self.second):
            one.config.use_cache = False
        if frozen is not None:
            getattr(self, frozen).requires_grad_(False)

    def forward(self, input_ids):
        return sum(one(input_ids=input_ids, labels=input_ids).loss for one in (self.first, self.second))


def train(model):
    model.zero_grad()
    loss = model(om.tokens(40, batch=2))
    loss.backward()
    return {"loss": loss.detach()} | {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def test_each_that_learns_is_offloaded(capsys):
    model = Pair()
    whole = train(model)
    assert ebbtide.offload(model, strict=True, **PIECES) is model
    assert om.worst_error(train(model), whole) < 1e-4
    assert [found.root for found in all_offloaded_of(model)] == [model.first, model.second]
    assert [found.head.calls for found in all_offloaded_of(model)] == [1, 1]
    ebbtide.offload(model, off=True)
    om.assert_same_bits(train(model), whole)
    assert not all_offloaded_of(model) and our_lines(capsys.readouterr().err) == []


@pytest.mark.parametrize("frozen", [None, "second"])
def test_what_a_device_has_to_spare_is_counted_beside_all_of_them(monkeypatch, frozen):
    model, counted = Pair(frozen=frozen), []
    monkeypatch.setattr(_offloaded, "Spare", lambda one: counted.append(one) or Spare(one))
    ebbtide.offload(model, **PIECES)
    assert counted and all(one is model for one in counted)


@pytest.mark.parametrize("frozen, learning", [("first", "second"), ("second", "first")])
def test_a_frozen_reference_is_left_whole_wherever_it_comes(frozen, learning):
    model = Pair(frozen=frozen)
    whole = train(model)
    ebbtide.offload(model, strict=True, **PIECES)
    assert om.worst_error(train(model), whole) < 1e-4
    (found,) = all_offloaded_of(model)
    assert found.root is getattr(model, learning) and found.head.calls == 1


def test_the_budgets_are_shared_alike():
    model = Pair()
    ebbtide.offload(model, host=64 << 20, hbm=2 << 20, **PIECES)
    train(model)
    found = all_offloaded_of(model)
    assert [one.options.hbm for one in found] == [1 << 20, 1 << 20]
    assert [store.stats().host_budget_bytes for one in found for store in one.stores.all()] == [32 << 20] * 2


class Beside(torch.nn.Module):
    """An encoder of another library's layers beside a language model."""

    def __init__(self):
        super().__init__()
        self.encoder, self.lm = om.make("llama", torch.float32).model, om.make("qwen3", torch.float32)


def test_layers_beside_a_language_model_are_named_once_with_the_remedy(capsys):
    model = Beside()
    ebbtide.offload(model, **PIECES)
    (line,) = our_lines(capsys.readouterr().err)
    assert "encoder.layers.0 and 1 more" in line and "ebbtide.offload" in line
    ebbtide.offload(model.encoder, **PIECES)
    ebbtide.offload(model, **PIECES)
    assert offloaded_of(model.encoder) is not None and offloaded_of(model.lm) is not None
    assert our_lines(capsys.readouterr().err) == []


def test_layers_beside_a_language_model_stop_a_strict_program():
    model = Beside()
    with pytest.raises(EbbtideError, match="encoder.layers.0"):
        ebbtide.offload(model, strict=True, **PIECES)
    assert not all_offloaded_of(model)


def test_of_models_on_the_same_layers_the_first_is_cut_and_the_others_head_is_named(capsys):
    model = Pair(second="llama")
    model.second.model = model.first.model
    whole = train(model)
    ebbtide.offload(model, **PIECES)
    (line,) = our_lines(capsys.readouterr().err)
    assert "head of LlamaForCausalLM stays whole" in line
    assert om.worst_error(train(model), whole) < 1e-4


def test_where_one_cannot_be_offloaded_the_other_is(capsys):
    model = Pair()
    model.second.forward = lambda **_: 1 / 0
    ebbtide.offload(model, **PIECES)
    (line,) = our_lines(capsys.readouterr().err)
    assert "Qwen3ForCausalLM cannot be checked" in line
    assert [found.root for found in all_offloaded_of(model)] == [model.first]
    with pytest.raises(EbbtideError, match="Qwen3ForCausalLM cannot be checked"):
        ebbtide.offload(model, strict=True, **PIECES)
    assert not all_offloaded_of(model)
