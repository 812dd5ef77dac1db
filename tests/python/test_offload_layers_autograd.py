"""Cut layers in autograd: what is saved lives as long as its graph, and gradients arrive once."""

from __future__ import annotations

import contextlib
import copy
import gc

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed here")
pytest.importorskip("transformers", reason="transformers is not installed here")

import offload_models as om
from ebbtide._offload._layer import wrap_layers
from ebbtide._offload._options import Options
from ebbtide._offload._pieces import Policy
from ebbtide._offload._store import KeepStore
from torch.utils.checkpoint import checkpoint

ALGEBRA = 1e-10
POLICIES = list(Policy)


@contextlib.contextmanager
def cut(model, store, policy=Policy.SWAP, **changes):
    """The model's layers in pieces of 16 tokens, nothing kept on the device."""
    options = Options(**{"mini_sequence": 16, "keep_last": 0, **changes})
    cuts = wrap_layers(model, options, store, om.all_of(policy))
    try:
        yield cuts
    finally:
        cuts.undo()


def gradients_of(model):
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def compare(model, run, policy, store=None):
    """`run(model)` accumulates gradients: the same ones with and without the cut."""
    model.zero_grad(set_to_none=True)
    with om.in_double():
        run(model)
        expected = gradients_of(model)
        model.zero_grad(set_to_none=True)
        store = store or om.CopyStore()
        with cut(model, store, policy):
            run(model)
    assert om.worst_error(gradients_of(model), expected) <= ALGEBRA
    assert store.live == 0


@pytest.mark.parametrize("policy", POLICIES)
def test_two_forwards_before_one_backward(policy):
    def run(model):
        first = om.body_loss(model, om.tokens(50, seed=1))
        second = om.body_loss(model, om.tokens(40, batch=2, seed=2))
        (first * second).backward()

    compare(om.make("llama"), run, policy)


@pytest.mark.parametrize("policy", POLICIES)
def test_gradients_accumulate_over_micro_batches(policy):
    def run(model):
        for seed in range(3):
            om.body_loss(model, om.tokens(50, seed=seed)).backward()

    compare(om.make("llama"), run, policy)


def test_an_evaluation_between_forward_and_backward():
    def run(model):
        loss = om.body_loss(model, om.tokens(50))
        with torch.no_grad():
            om.body_loss(model, om.tokens(33, seed=9))
        loss.backward()

    compare(om.make("llama"), run, Policy.RECOMPUTE)


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("policy", POLICIES)
def test_checkpointing_around_layers(policy, reentrant):
    # The embeddings stay outside: reentrant checkpointing wants an input that needs a gradient.
    def run(model):
        embedded = model.get_input_embeddings()(om.tokens(50))

        def body(x):
            return model.base_model(inputs_embeds=x).last_hidden_state

        checkpoint(body, embedded, use_reentrant=reentrant).square().sum().backward()
        gc.collect()  # the exception that ends checkpoint's recomputation is part of a cycle

    compare(om.make("llama"), run, policy)


@pytest.mark.parametrize("policy", POLICIES)
def test_saved_tensor_hooks_of_the_caller_do_not_see_inside(policy):
    def run(model):
        with torch.autograd.graph.save_on_cpu():
            loss = om.body_loss(model, om.tokens(50))
        loss.backward()

    compare(om.make("llama"), run, policy)


@pytest.mark.parametrize("policy", POLICIES)
def test_an_abandoned_graph_leaves_nothing(policy):
    model, store = om.make("llama"), om.CopyStore()
    gc.disable()  # reference counts alone must do
    try:
        with cut(model, store, policy):
            loss = om.body_loss(model, om.tokens(50))
            assert store.live > 0
            del loss
            assert store.live == 0
    finally:
        gc.enable()


@pytest.mark.parametrize("policy", POLICIES)
def test_no_node_of_a_graph_outlives_its_backward(policy):
    # A saved tensor that holds the node that saves it is a cycle that no collector sees.
    def nodes():
        gc.collect()
        return sum(type(one).__name__ == "_SourceBackward" for one in gc.get_objects())

    model = om.make("llama")
    before = nodes()
    with cut(model, om.CopyStore(), policy):
        for _ in range(2):
            om.body_loss(model, om.tokens(50)).backward()
    assert nodes() == before


class _Boom(Exception):
    pass


class _Exploding(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        raise _Boom


@pytest.mark.parametrize("policy", POLICIES)
def test_an_exception_in_mid_backward_leaves_nothing_and_breaks_nothing(policy):
    model, store = om.make("llama", num_hidden_layers=3), om.CopyStore()
    ids = om.tokens(50)
    expected = om.gradients(model, ids)
    mlp = om.layers_of(model)[1].mlp
    with cut(model, store, policy):
        own = mlp.forward
        mlp.forward = lambda x: _Exploding.apply(own(x))
        with pytest.raises(_Boom):
            om.body_loss(model, ids).backward()
        del mlp.forward
        gc.collect()  # the traceback holds the graph
        assert store.live == 0
        assert all(type(p) is torch.nn.Parameter for p in model.parameters())
        found = om.gradients(model, ids)
    assert om.worst_error(found, expected) <= ALGEBRA


@pytest.mark.parametrize("policy", POLICIES)
def test_an_exception_in_forward_leaves_nothing(policy):
    model, store = om.make("llama", num_hidden_layers=3), om.CopyStore()

    def explode(*_):
        raise _Boom

    with cut(model, store, policy):
        handle = om.layers_of(model)[2].mlp.register_forward_hook(explode)
        with pytest.raises(_Boom):
            om.body_loss(model, om.tokens(50))
        handle.remove()
        gc.collect()
        assert store.live == 0


@pytest.mark.parametrize("policy", POLICIES)
def test_a_second_backward_is_an_error_that_says_what_to_do(policy):
    model = om.make("llama")
    with cut(model, om.CopyStore(), policy):
        loss = om.body_loss(model, om.tokens(50))
        loss.backward(retain_graph=True)
        with pytest.raises(RuntimeError, match=r"second time .* call backward once"):
            loss.backward()


def test_a_second_derivative_is_an_error():
    model = om.make("llama")
    with cut(model, om.CopyStore()):
        loss = om.body_loss(model, om.tokens(50))
        weight = om.layers_of(model)[0].mlp.up_proj.weight
        (first,) = torch.autograd.grad(loss, weight, create_graph=True)
        with pytest.raises(RuntimeError, match="once_differentiable"):
            first.sum().backward()


@pytest.mark.parametrize("store", [KeepStore, om.CopyStore])
def test_an_input_changed_in_place_after_the_save_raises(store):
    layer = om.layers_of(om.make("llama"))[0]
    model = torch.nn.ModuleList([layer])
    rotary = om.make("llama").base_model.rotary_emb
    x = torch.randn(1, 50, om.HIDDEN, dtype=torch.float64, requires_grad=True).clone()
    positions = rotary(x, torch.arange(50)[None])
    with cut(model, store()):
        y = layer(x, position_embeddings=positions)
        x.add_(1)
        with pytest.raises(RuntimeError, match="input of a layer was changed in place"):
            y.sum().backward()


def test_an_argument_changed_in_place_after_the_save_raises():
    layer = om.layers_of(om.make("llama"))[0]
    x = torch.randn(1, 50, om.HIDDEN, dtype=torch.float64, requires_grad=True)
    cos, sin = torch.randn(2, 1, 50, om.HIDDEN // om.HEADS, dtype=torch.float64)
    with cut(torch.nn.ModuleList([layer]), KeepStore()):
        y = layer(x, position_embeddings=(cos.clone(), sin.clone().mul_(1)))
        z = layer(x, position_embeddings=(cos, sin))
        y.sum().backward()
        cos.mul_(2)
        with pytest.raises(RuntimeError, match="argument of a layer was changed in place"):
            z.sum().backward()


@pytest.mark.parametrize("policy", POLICIES)
def test_a_step_of_the_optimizer_before_backward_raises(policy):
    model = om.make("llama")
    with cut(model, om.CopyStore(), policy):
        loss = om.body_loss(model, om.tokens(50))
        with torch.no_grad():
            om.layers_of(model)[1].mlp.up_proj.weight.mul_(2)
        with pytest.raises(RuntimeError, match="step the optimizer after backward"):
            loss.backward()


@pytest.mark.parametrize("policy", POLICIES)
def test_frozen_layers_get_no_gradient_and_pass_it_on(policy):
    model = om.make("llama", num_hidden_layers=3)
    for index in (0, 2):
        om.layers_of(model)[index].requires_grad_(False)
    compare(model, lambda model: om.body_loss(model, om.tokens(50)).backward(), policy)
    assert om.layers_of(model)[0].mlp.up_proj.weight.grad is None
    assert om.layers_of(model)[1].mlp.up_proj.weight.grad is not None


class _LowRank(torch.nn.Module):
    """A frozen linear layer and a trainable low-rank one beside it, as PEFT makes them."""

    def __init__(self, base):
        super().__init__()
        self.base = base.requires_grad_(False)
        weight = base.weight
        self.a = torch.nn.Parameter(0.1 * torch.randn(3, weight.shape[1], dtype=weight.dtype))
        self.b = torch.nn.Parameter(0.1 * torch.randn(weight.shape[0], 3, dtype=weight.dtype))

    def forward(self, x):
        return self.base(x) + x @ self.a.T @ self.b.T


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("names", [("q_proj", "v_proj"), ("o_proj",), ("v_proj", "down_proj")])
def test_low_rank_adapters_on_frozen_weights(policy, names):
    model = om.make("llama").requires_grad_(False)
    for layer in om.layers_of(model):
        for parent in (layer.self_attn, layer.mlp):
            for name in names:
                if hasattr(parent, name):
                    setattr(parent, name, _LowRank(getattr(parent, name)))
    compare(model, lambda model: om.body_loss(model, om.tokens(50)).backward(), policy)
    trained = [name for name, p in model.named_parameters() if p.grad is not None]
    assert trained and all(name.endswith((".a", ".b")) for name in trained)


def test_hooks_of_a_parameter_see_one_gradient():
    # Liger's tiled MLP and DDP: a gradient for each piece would be "marked ready twice".
    model = om.make("llama")
    weight = om.layers_of(model)[0].mlp.up_proj.weight
    with cut(model, om.CopyStore()):
        seen, accumulated = [], []
        weight.register_hook(seen.append)
        weight.register_post_accumulate_grad_hook(lambda p: accumulated.append(p.grad.clone()))
        om.body_loss(model, om.tokens(50)).backward()
    assert len(seen) == len(accumulated) == 1
    assert torch.equal(seen[0], accumulated[0])


def test_an_optimizer_in_backward_frees_each_gradient():
    def make_steps(model):
        def step(parameter):
            with torch.no_grad():
                parameter.sub_(0.1 * parameter.grad)
            parameter.grad = None

        return [p.register_post_accumulate_grad_hook(step) for p in model.parameters()]

    whole, pieces = om.make("llama"), om.make("llama")
    with om.in_double():
        for model in (whole, pieces):
            make_steps(model)
            around = cut(model, om.CopyStore()) if model is pieces else contextlib.nullcontext()
            with around:
                for seed in range(2):
                    om.body_loss(model, om.tokens(50, seed=seed)).backward()
    found, expected = (dict(model.named_parameters()) for model in (pieces, whole))
    assert om.worst_error(found, expected) <= ALGEBRA


def test_gradients_asked_for_one_tensor_only():
    model = om.make("llama")
    weight = om.layers_of(model)[1].self_attn.q_proj.weight
    (expected,) = torch.autograd.grad(om.body_loss(model, om.tokens(50)), weight)
    with cut(model, om.CopyStore()):
        (found,) = torch.autograd.grad(om.body_loss(model, om.tokens(50)), weight)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_gradient_that_a_caller_gives_is_not_written_to():
    model = om.make("llama")
    with cut(model, om.CopyStore()):
        layer = om.layers_of(model)[1]
        outputs = []
        handle = layer.register_forward_hook(lambda *args: outputs.append(args[2]))
        model.base_model(om.tokens(50))
        handle.remove()
        given = torch.randn_like(outputs[0])
        before = given.clone()
        outputs[0].backward(given)
    assert torch.equal(given, before)


@pytest.fixture
def overwritten(monkeypatch):
    """Whether each layer's backward, last layer first, wrote over the gradient that it was given."""
    from ebbtide._offload import _layer_function

    flags = []
    own = _layer_function.run_backward

    def noted(record, dy, overwrites):
        flags.append(overwrites)
        return own(record, dy, overwrites)

    monkeypatch.setattr(_layer_function, "run_backward", noted)
    return flags


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])  # GPT-2 reshapes its last layer's output
def test_gradients_take_the_memory_of_those_that_nobody_needs(overwritten, architecture):
    model = om.make(architecture, num_hidden_layers=3)
    expected = om.gradients(model, om.tokens(50))
    with cut(model, om.CopyStore()):
        found = om.gradients(model, om.tokens(50))
    assert overwritten == [True, True, True]
    assert om.worst_error(found, expected) <= ALGEBRA


class _Pair(torch.nn.Module):
    """Two layers; `between` is what a user does with what goes from one to the other."""

    def __init__(self, between=lambda x: x):
        super().__init__()
        model = om.make("llama")
        self.layers, self.rotary, self.between = om.layers_of(model), model.base_model.rotary_emb, between

    def forward(self, x):
        positions = self.rotary(x, torch.arange(x.shape[1])[None])
        for layer in self.layers:
            x = self.between(layer(x, position_embeddings=positions))
        return x


@pytest.fixture
def x():
    return torch.randn(1, 50, om.HIDDEN, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("view", [lambda g: g, lambda g: g.detach(), lambda g: g[0, 3:]])
def test_gradients_that_a_hook_keeps_are_not_overwritten(overwritten, x, view):
    def run(cuts):
        kept = []

        def keep(hidden):
            hidden.register_hook(lambda gradient: kept.append(view(gradient)))
            return hidden

        pair = _Pair(keep)
        with cut(pair, om.CopyStore()) if cuts else contextlib.nullcontext():
            pair(x).square().sum().backward()
        return {str(index): gradient for index, gradient in enumerate(kept)}

    expected = run(False)
    assert om.worst_error(run(True), expected) <= 1e-5
    assert overwritten == [False, False]


def test_a_gradient_whose_base_a_hook_keeps_is_not_overwritten(overwritten, x):
    def run(cuts):
        kept = []

        def keep(hidden):
            flat = hidden.view(-1)
            flat.register_hook(kept.append)
            return flat.view(hidden.shape) * 1

        pair = _Pair(keep)
        with cut(pair, om.CopyStore()) if cuts else contextlib.nullcontext():
            pair(x).square().sum().backward()
        return {str(index): gradient for index, gradient in enumerate(kept)}

    expected = run(False)
    assert om.worst_error(run(True), expected) <= 1e-5
    assert overwritten == [False, False]


def test_gradients_that_are_retained_are_not_overwritten(x):
    def run(cuts):
        kept = []

        def keep(hidden):
            hidden.retain_grad()
            kept.append(hidden)
            return hidden

        pair = _Pair(keep)
        with cut(pair, om.CopyStore()) if cuts else contextlib.nullcontext():
            pair(x).square().sum().backward()
        return {str(index): hidden.grad for index, hidden in enumerate(kept)}

    expected = run(False)
    assert om.worst_error(run(True), expected) <= 1e-5


def test_a_gradient_shared_by_two_branches_is_not_overwritten(x):
    # Both summands of an addition get one and the same gradient.
    def run(cuts):
        other = torch.zeros_like(x).requires_grad_()
        pair = _Pair(lambda hidden: hidden + other)
        with cut(pair, om.CopyStore()) if cuts else contextlib.nullcontext():
            pair(x).square().sum().backward()
        return {"other": other.grad}

    expected = run(False)
    assert om.worst_error(run(True), expected) <= 1e-5


def test_a_copy_of_a_cut_model_is_a_model_of_its_own():
    model = om.make("llama")
    with cut(model, KeepStore(), Policy.RECOMPUTE):
        twin = copy.deepcopy(model)
        om.body_loss(twin, om.tokens(50)).backward()
    assert all(parameter.grad is None for parameter in model.parameters())
    assert om.layers_of(twin)[0].mlp.up_proj.weight.grad is not None
