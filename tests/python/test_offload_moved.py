"""A model that is moved, copied, pickled or filled with values after it was offloaded."""

from __future__ import annotations

import copy
import io
import pathlib
import sys

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import ebbtide  # noqa: E402
import offload_models as om  # noqa: E402
from conftest import our_lines  # noqa: E402
from dryrun_run import simulate  # noqa: E402
from ebbtide import EbbtideError  # noqa: E402
from ebbtide._offload._offloaded import offloaded_of  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]
PIECES = {"mini_sequence": 8, "host": "64MiB"}


def make():
    return om.make("llama", torch.float32)


def train(model):
    ids = om.tokens(29, 2)
    model.zero_grad()
    loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    return {"loss": loss.detach(), **{n: p.grad.clone() for n, p in model.named_parameters()}}


BLOCKS = f"""
sys.path.insert(0, {str(ROOT / "python_shim")!r})
import ebbtide
from ebbtide._offload._offloaded import offloaded_of

class Block(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.outer = torch.nn.Linear(64, 192), torch.nn.Linear(64, 64)
    def before_attention(self, x):
        return self.inner(x).chunk(3, -1)
    def attention(self, q, k, v):
        return q * k + v
    def after_attention(self, x, out):
        return x + torch.nn.functional.gelu(self.outer(out))
    def forward(self, x):
        return self.after_attention(x, self.attention(*self.before_attention(x)))

HOST = 64 << 20
model = torch.nn.Sequential(*[Block() for _ in range(4)])
ebbtide.offload(model, alpha=1.0, mini_sequence=256, host=HOST)

def step():
    model(torch.ones(1, 1024, 64, device=model[0].outer.weight.device)).sum().backward()
    return {{str(device): [store.stats().host_budget_bytes, store.stats().swapped_out_bytes > 0, store.stats().live_bytes]
             for device, store in offloaded_of(model).stores._stores.items()}}
"""


@pytest.mark.parametrize("alpha", [0.5, "auto"])
def test_a_copy_of_a_model_that_swaps_trains_alike_without_the_original(native, alpha):
    model = make()
    ebbtide.offload(model, alpha=alpha, **PIECES)
    expected = train(model)
    twin = copy.deepcopy(model)
    om.assert_same_bits(train(twin), expected)
    del model
    om.assert_same_bits(train(twin), expected)
    assert offloaded_of(twin).stores.all()[0].stats().live_bytes == 0


@pytest.mark.parametrize("alpha", [0.5, "auto"])
def test_a_pickled_model_is_the_model_without_offload(native, alpha):
    model = make()
    whole = train(model)
    ebbtide.offload(model, alpha=alpha, **PIECES)
    pieces = train(model)
    saved = io.BytesIO()
    torch.save(model, saved)
    assert b"ebbtide._" not in saved.getvalue()  # it can be loaded where there is no Ebbtide
    saved.seek(0)
    loaded = torch.load(saved, weights_only=False)
    assert offloaded_of(loaded) is None
    om.assert_same_bits(train(loaded), whole)
    loaded.gradient_checkpointing_enable()
    assert loaded.model.layers[0].gradient_checkpointing
    loaded.gradient_checkpointing_disable()
    ebbtide.offload(loaded, alpha=alpha, **PIECES)
    om.assert_same_bits(train(loaded), pieces)
    om.assert_same_bits(train(model), pieces)


def test_a_model_without_values_may_be_filled_after_it_was_offloaded(native):
    from transformers import AutoModelForCausalLM

    filled = make()
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(filled.config)
    ebbtide.offload(model, alpha=0.5, **PIECES)
    model.to_empty(device="cpu")
    model.load_state_dict(filled.state_dict())
    for name, buffer in filled.named_buffers():
        holder, _, last = name.rpartition(".")
        model.get_submodule(holder)._buffers[last] = buffer.clone()
    ebbtide.offload(filled, alpha=0.5, **PIECES)
    om.assert_same_bits(train(model.train()), train(filled))


def test_a_model_moved_to_a_gpu_saves_there_and_back_on_the_host(native, tmp_path):
    """As Trainer does with a model that was offloaded before."""
    done = simulate(
        BLOCKS + "first = step(); model.cuda(); second = step(); model.cpu(); print(json.dumps([first, second, step()]))",
        tmp_path,
        EBBTIDE_NATIVE_DIR=str(native),
    )
    there = [64 << 20, True, 0]
    assert done.answer() == [{"cpu": there}, {"cuda:0": there}, {"cpu": there}]


def test_devices_that_share_a_model_share_its_host_budget(native, tmp_path):
    done = simulate(
        BLOCKS + "model[:2].cuda(0); model[2:].cuda(1); step(); print(json.dumps([step(), ebbtide.stats().offload.models[0].host.host_budget_bytes]))",
        tmp_path,
        count=2,
        EBBTIDE_NATIVE_DIR=str(native),
    )
    half = [32 << 20, True, 0]
    assert done.answer() == [{"cuda:0": half, "cuda:1": half}, 64 << 20]


def test_a_model_that_works_under_autocast_alone_is_checked_under_it(capsys):
    model = make().bfloat16()
    for name, parameter in model.named_parameters():  # as peft's preparation for 4 bits leaves them
        if "norm" in name:
            parameter.data = parameter.data.float()
    twin = copy.deepcopy(model)
    ebbtide.offload(model, alpha=0.5, strict=True, mini_sequence=8, host=0)
    with torch.autocast("cpu", torch.bfloat16):
        assert om.worst_error(train(model), train(twin)) < 0.1
    assert offloaded_of(model).head is not None and our_lines(capsys.readouterr().err) == []


def test_a_model_that_fails_by_itself_is_left_as_it_is(capsys):
    model = make()
    model.model.layers[1].mlp.up_proj = torch.nn.Linear(om.HIDDEN, om.MLP + 1, bias=False)
    ebbtide.offload(model, mini_sequence=8, host=0)
    (line,) = our_lines(capsys.readouterr().err)
    assert "cannot be checked: before anything was changed in it, it fails on 11 tokens" in line
    assert offloaded_of(model) is None
    with pytest.raises(EbbtideError, match="cannot be checked"):
        ebbtide.offload(model, strict=True, mini_sequence=8, host=0)


def test_a_model_that_wants_more_than_tokens_is_left_as_it_is(capsys):
    """As speech models do. Whatever error it is that a model has for that."""
    model = make()

    def wants_more(*_):
        raise AttributeError("'NoneType' object has no attribute 'shape'")

    hook = model.model.register_forward_pre_hook(wants_more)
    ebbtide.offload(model, mini_sequence=8, host=0)
    (line,) = our_lines(capsys.readouterr().err)
    assert "cannot be checked" in line and "no attribute 'shape'" in line
    assert offloaded_of(model) is None
    hook.remove()
    train(model)


def test_a_model_that_runs_on_other_embeddings_than_it_names_is_checked(capsys):
    """As BART, whose encoder and decoder have their own on the same weights."""
    model, named = make(), torch.nn.Embedding(om.VOCABULARY, om.HIDDEN)
    model.get_input_embeddings = lambda: named
    whole = train(model)
    ebbtide.offload(model, strict=True, mini_sequence=8, host=0)
    assert om.worst_error(train(model), whole) < 1e-4
    assert our_lines(capsys.readouterr().err) == []
