"""Where a layer can be cut, and what happens to those that cannot."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed here")
pytest.importorskip("transformers", reason="transformers is not installed here")

import offload_models as om
from conftest import our_lines
from ebbtide import EbbtideError
from ebbtide._offload._layer import wrap_layers
from ebbtide._offload._options import Options
from ebbtide._offload._pieces import Policy
from ebbtide._offload._store import KeepStore

ALGEBRA = 1e-10
OPTIONS = Options(mini_sequence=16, keep_last=0)
F = torch.nn.functional


class PartsBlock(torch.nn.Module):
    """A block of plain torch that offers its parts: ALiBi-like bias, two heads, two outputs of a norm."""

    def __init__(self, width=12):
        super().__init__()
        self.norm = torch.nn.LayerNorm(width)
        self.qkv = torch.nn.Linear(width, 3 * width)
        self.out = torch.nn.Linear(width, width)
        self.mlp = torch.nn.Sequential(
            torch.nn.Linear(width, 20), torch.nn.Dropout(0.2), torch.nn.GELU(), torch.nn.Linear(20, width)
        )
        self.slope = torch.nn.Parameter(torch.tensor(0.1))
        self.attentions = 0

    def before_attention(self, x, scale, bias=None):
        return self.qkv(self.norm(x) * scale).unflatten(-1, (3, 2, -1)).unbind(2)

    def attention(self, q, k, v, bias=None):
        self.attentions += 1
        q, k, v = (part.transpose(1, 2) for part in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias * self.slope)
        return y.transpose(1, 2)

    def after_attention(self, x, out, scale, bias=None):
        x = x + self.out(out.flatten(2)) * scale
        return x + self.mlp(x)

    def forward(self, x, scale, bias=None):
        parts = self.before_attention(x, scale, bias=bias)
        return self.after_attention(x, self.attention(*parts, bias=bias), scale, bias=bias)


class Stack(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(5)
        self.blocks = torch.nn.ModuleList(PartsBlock() for _ in range(2))
        self.double()

    def forward(self, x):
        batch, length = x.shape[:2]
        scale = torch.linspace(0.5, 1.5, length, dtype=x.dtype).view(1, length, 1)
        bias = torch.randn(length, length, dtype=x.dtype, generator=torch.Generator().manual_seed(1))
        for block in self.blocks:
            x = block(x, scale, bias=bias)
        return x


def run(model, x, seed=0):
    model.zero_grad()
    torch.manual_seed(seed)
    loss = model(x).square().sum()
    loss.backward()
    gradients = {n: p.grad.clone() for n, p in model.named_parameters()}
    return {"loss": loss.detach(), "x": x.grad.clone(), **gradients}


def test_a_module_that_offers_its_parts_is_cut():
    model, x = Stack().eval(), torch.randn(2, 50, 12, dtype=torch.float64).requires_grad_()
    expected = run(model, x)
    x.grad = None
    cuts = wrap_layers(model, OPTIONS, om.CopyStore())
    found = run(model, x)
    assert [tally.whole_because for tally in cuts.counts()] == [None, None]
    assert [tally.attention_forwards for tally in cuts.counts()] == [1, 1]
    assert [block.attentions for block in model.blocks] == [2, 2]
    assert om.worst_error(found, expected) <= ALGEBRA


def test_policies_change_no_bit_of_such_a_module_with_dropout():
    results = []
    for policy in Policy:
        model, x = Stack(), torch.ones(2, 50, 12, dtype=torch.float64).requires_grad_()
        wrap_layers(model, OPTIONS, om.CopyStore(), om.all_of(policy))
        results.append(run(model, x))
    om.assert_same_bits(results[1], results[0])
    om.assert_same_bits(results[2], results[0])


def test_a_model_without_layers_is_refused():
    with pytest.raises(EbbtideError, match="Linear: no layer was found that can be cut"):
        wrap_layers(torch.nn.Linear(3, 3), OPTIONS, KeepStore())


def whole_reasons(model, capsys, store=None, **inputs):
    """Runs the model whole and cut, checks that both agree, and returns the reasons and what was said."""
    expected = om.gradients(model, om.tokens(50), **inputs)
    cuts = wrap_layers(model, OPTIONS, store or om.CopyStore())
    found = om.gradients(model, om.tokens(50), **inputs)
    om.gradients(model, om.tokens(50), **inputs)
    reasons = [tally.whole_because for tally in cuts.counts()]
    cuts.undo()
    assert om.worst_error(found, expected) <= ALGEBRA
    return reasons, capsys.readouterr().err


def test_a_layer_without_attention_is_treated_whole_and_says_so_once(capsys):
    store = om.CopyStore()
    model = om.make("qwen3_next", layer_types=["linear_attention"] * 2)
    reasons, said = whole_reasons(model, capsys, store)
    assert reasons == ["it calls no attention that transformers knows of"] * 2
    assert said.count("saved and run whole") == 1
    assert "model.layers.0 (Qwen3NextDecoderLayer)" in said
    assert store.taken > 0 and store.live == 0


def test_attention_called_twice_is_treated_whole(capsys):
    model = om.make("llama")
    attention = om.layers_of(model)[0].self_attn
    own = attention.forward

    def twice(*args, **kwargs):
        first, _ = own(*args, **kwargs)
        second, weights = own(*args, **kwargs)
        return first + second, weights

    attention.forward = twice
    reasons, said = whole_reasons(model, capsys)
    assert reasons == ["it calls attention more than once", None]


def test_an_attention_argument_made_inside_the_layer_is_treated_whole(capsys):
    model = om.make("llama", attn_implementation="eager")
    attention = om.layers_of(model)[1].self_attn
    own = attention.forward

    def with_other_mask(*args, attention_mask, **kwargs):
        return own(*args, attention_mask=attention_mask * 1, **kwargs)

    attention.forward = with_other_mask
    reasons, _ = whole_reasons(model, capsys)
    assert reasons == [None, "its attention takes a tensor that is made inside of the layer"]


def test_another_argument_that_needs_a_gradient_is_treated_whole():
    layer = om.layers_of(om.make("llama"))[0]
    x = torch.randn(1, 50, om.HIDDEN, dtype=torch.float64, requires_grad=True)
    cos, sin = (t.requires_grad_() for t in torch.randn(2, 1, 50, 8, dtype=torch.float64).unbind())

    def gradients():
        y = layer(x, position_embeddings=(cos, sin))
        return torch.autograd.grad(y.square().sum(), [x, cos, sin, layer.mlp.up_proj.weight])

    expected = gradients()
    cuts = wrap_layers(torch.nn.ModuleList([layer]), OPTIONS, om.CopyStore())
    found = gradients()
    assert cuts.counts()[0].whole_because == "an argument beside its input needs a gradient"
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=ALGEBRA, atol=ALGEBRA)


def test_a_whole_layer_draws_the_same_dropout_again():
    model = om.make("gpt2", torch.float32, resid_pdrop=0.1)

    def run(model):
        torch.manual_seed(3)
        return om.gradients(model, om.tokens(50))

    expected = run(model)
    cuts = wrap_layers(model, OPTIONS, om.CopyStore())
    for tally in cuts.counts():
        cuts.treat_whole(tally.name, "a test wants it so")
    found = run(model)
    cuts.undo()
    assert om.worst_error(found, expected) <= 1e-5
    assert torch.equal(found["loss"], expected["loss"])


def test_strict_makes_it_an_error():
    model = om.make("qwen3_next")
    cuts = wrap_layers(model, Options(mini_sequence=16, strict=True), KeepStore())
    with pytest.raises(EbbtideError, match="is not cut into pieces but saved and run whole"):
        om.body_loss(model, om.tokens(50))
    cuts.undo()


@pytest.mark.parametrize("asked", ["output_attentions", "output_router_logits"])
def test_what_is_asked_of_modules_inside_is_told_by_layers_that_run_whole(asked, capsys):
    """The loss is of what was asked for, too, as that of routers is."""
    model = om.make("qwen3_moe", torch.float32, attn_implementation="eager")
    ids, name = om.tokens(50), asked.removeprefix("output_")

    def train():
        model.zero_grad()
        output = model(ids, labels=ids, **{asked: True})
        loss = output.loss + sum(told.square().mean() for told in getattr(output, name))
        loss.backward()
        told = {f"{name}{i}": told.detach() for i, told in enumerate(getattr(output, name))}
        return told | {"loss": loss.detach()} | {n: p.grad.clone() for n, p in model.named_parameters()}

    expected, store = train(), om.CopyStore()
    cuts = wrap_layers(model, Options(mini_sequence=16, keep_last=0), store)
    found = train()
    tallies = cuts.counts()
    cuts.undo()
    om.assert_same_bits(found, expected)
    assert [tally.calls for tally in tallies] == [1] * om.LAYERS and store.taken == om.LAYERS * 50 * om.HIDDEN * 4
    (line,) = our_lines(capsys.readouterr().err)
    assert f"run whole in calls that ask for what is inside of them: {asked}" in line


def test_what_is_asked_for_in_evaluation_leaves_the_call_alone():
    model, ids = om.make("qwen3_moe", torch.float32), om.tokens(50)
    cuts = wrap_layers(model, OPTIONS, KeepStore())
    with torch.no_grad():
        assert len(model(ids, output_router_logits=True).router_logits) == om.LAYERS
    assert [tally.calls for tally in cuts.counts()] == [0] * om.LAYERS
    cuts.undo()


def test_earlier_keys_and_values_leave_a_training_call_alone_and_say_so(capsys):
    model, ids = om.make("llama", torch.float32), om.tokens(50)

    def train():
        model.zero_grad()
        with torch.no_grad():
            before = model(ids[:, :20], use_cache=True).past_key_values
        loss = model(ids[:, 20:], labels=ids[:, 20:], past_key_values=before).loss
        loss.backward()
        return {"loss": loss.detach()} | {n: p.grad.clone() for n, p in model.named_parameters()}

    expected = train()
    cuts = wrap_layers(model, OPTIONS, KeepStore())
    om.assert_same_bits(train(), expected)
    assert [tally.calls for tally in cuts.counts()] == [0] * om.LAYERS
    cuts.undo()
    (line,) = our_lines(capsys.readouterr().err)
    assert "are not offloaded in calls with keys and values of earlier tokens" in line


def test_a_cache_of_recurrent_layers_alone_is_no_part_of_training():
    model, ids = om.make("mamba", torch.float32, extra={}), om.tokens(50)
    expected = om.gradients(model, ids, use_cache=True)
    cuts = wrap_layers(model, Options(mini_sequence=16, keep_last=0), om.CopyStore())
    assert om.worst_error(om.gradients(model, ids, use_cache=True), expected) < 1e-4
    assert [tally.calls for tally in cuts.counts()] == [1] * om.LAYERS
    cuts.undo()


def test_hidden_states_of_layers_are_still_told():
    model, ids = om.make("llama"), om.tokens(50)
    expected = model(ids, output_hidden_states=True).hidden_states
    cuts = wrap_layers(model, OPTIONS, KeepStore())
    found = model(ids, output_hidden_states=True).hidden_states
    cuts.undo()
    assert len(found) == len(expected) == om.LAYERS + 1
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_a_wrapper_of_the_forward_that_was_there_before_is_kept():
    model = om.make("llama")
    layer, calls = om.layers_of(model)[0], []
    own = layer.forward

    def counted(*args, **kwargs):
        calls.append(args[0].shape[1])
        return own(*args, **kwargs)

    layer.forward = counted
    cuts = wrap_layers(model, OPTIONS, KeepStore())
    om.body_loss(model, om.tokens(50))
    cuts.undo()
    assert set(calls) == {16, 2}
    assert layer.forward is counted


def test_checkpointing_of_transformers_inside_a_cut_layer_runs_nothing_twice():
    model = om.make("llama")
    expected = om.gradients(model, om.tokens(50))
    model.gradient_checkpointing_enable()
    cuts = wrap_layers(model, OPTIONS, om.CopyStore())
    found = om.gradients(model, om.tokens(50))
    assert [tally.attention_forwards for tally in cuts.counts()] == [1, 1]
    assert all(layer.gradient_checkpointing for layer in om.layers_of(model))
    assert om.worst_error(found, expected) <= ALGEBRA
