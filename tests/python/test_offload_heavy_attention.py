"""Attention that saves far more than its inputs and output weigh: its forward runs again in backward instead."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed here")
pytest.importorskip("transformers", reason="transformers is not installed here")

import ebbtide
import offload_models as om
from ebbtide._offload._layer import wrap_layers
from ebbtide._offload._options import Options
from ebbtide._offload._pieces import Policy

pytestmark = pytest.mark.usefixtures("native")
LONG, SHORT = 200, 12
EAGER = {"attn_implementation": "eager", "attention_dropout": 0.1}


def train(model, length, policies=None, **changes):
    """Gradients of one step and of a second one, what each layer counted, and the bytes a layer saved."""
    cuts = wrap_layers(model, Options(**{"mini_sequence": 64, "keep_last": 0, **changes}), om.CopyStore(), policies)
    torch.manual_seed(11)
    found = {}
    for step in range(2):
        model.zero_grad()
        om.body_loss(model, om.tokens(length, batch=2, seed=step)).backward()
        found |= {f"{name} {step}": p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    counts = cuts.counts()
    cuts.undo()
    return found, [tally.attention_forwards for tally in counts], counts[0].always_bytes_per_token * length


@pytest.mark.parametrize("architecture", ["llama", "gemma2", "gpt_oss", "gpt2"])
@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_it_is_not_saved_and_no_bit_differs(architecture, alpha):
    dropout = {"attn_pdrop": 0.1, "attn_implementation": "eager"} if architecture == "gpt2" else EAGER
    model = om.make(architecture, torch.float32, **dropout)
    saved, once, all_bytes = train(model, LONG, alpha=alpha, attention="save")
    again, twice, few_bytes = train(model, LONG, alpha=alpha)
    om.assert_same_bits(again, saved)
    assert (once, twice) == ([2, 2], [4, 4])
    heads_by_tokens = 2 * om.HEADS * LONG * LONG * 4
    assert all_bytes - few_bytes > heads_by_tokens  # one matrix of scores at least
    assert few_bytes < heads_by_tokens / 8  # the layer's input and attention's output


def test_a_single_piece_that_is_saved_gives_the_same_bits():
    model = om.make("gemma2", torch.float32)
    saved, _, _ = train(model, LONG, om.all_of(Policy.SWAP), mini_sequence=LONG, attention="save")
    again, forwards, _ = train(model, LONG, om.all_of(Policy.SWAP), mini_sequence=LONG)
    om.assert_same_bits(again, saved)
    assert forwards == [4, 4]


def test_no_bit_differs_with_stores_of_c():
    model = om.make("gpt_oss", torch.float32, attention_dropout=0.1)
    ids, found = om.tokens(LONG, batch=2), {}
    for attention in ("save", "auto"):
        ebbtide.offload(model, alpha=0.5, attention=attention, mini_sequence=64, host=1 << 28)
        model.zero_grad()
        torch.manual_seed(11)
        model(input_ids=ids, labels=ids).loss.backward()
        found[attention] = {name: p.grad.clone() for name, p in model.named_parameters()}
    om.assert_same_bits(found["auto"], found["save"])
    swapped = {one.layers[0].swapped_bytes for one in ebbtide.stats().offload.models[-2:]}
    assert max(swapped) > 2 * min(swapped) > 0


def test_what_is_little_is_saved():
    model = om.make("llama", torch.float32, attn_implementation="eager")
    _, forwards, _ = train(model, SHORT, mini_sequence=6)
    assert forwards == [2, 2]
    _, forwards, _ = train(om.make("llama", torch.float32), LONG)  # torch's own attention saves statistics
    assert forwards == [2, 2]


def lines_about_attention(capfd):
    return [line for line in capfd.readouterr().err.splitlines() if "attention" in line]


def test_a_program_that_asks_for_it_is_told_once_what_it_costs(capfd):
    model = om.make("gemma2", torch.float32)
    ebbtide.offload(model, alpha=0.0, attention="save", mini_sequence=64)
    ids = om.tokens(LONG, batch=2)
    for _ in range(2):
        model(input_ids=ids, labels=ids).loss.backward()
    (line,) = lines_about_attention(capfd)
    for part in ("model.layers.0", "MiB", f"{LONG} tokens", 'attention="auto"'):
        assert part in line, line
    assert all(layer.attention_forwards == layer.calls for layer in ebbtide.stats().offload.models[-1].layers)


@pytest.mark.parametrize("alpha", [0.5, "memo", "auto"])
def test_no_word_is_needed_for_it(capfd, alpha):
    model = om.make("gemma2", torch.float32)
    ebbtide.offload(model, alpha=alpha, mini_sequence=64, host=1 << 28)
    ids = om.tokens(LONG, batch=2)
    for _ in range(3):
        model(input_ids=ids, labels=ids).loss.backward()
    assert lines_about_attention(capfd) == []
    assert all(layer.attention_forwards == 2 * layer.calls for layer in ebbtide.stats().offload.models[-1].layers)
