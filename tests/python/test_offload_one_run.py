"""What a layer does not compute twice: a call of one piece runs once, and no run makes results that nobody needs."""

from __future__ import annotations

import itertools

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed here")
pytest.importorskip("transformers", reason="transformers is not installed here")

import offload_models as om
from ebbtide._offload._layer import wrap_layers
from ebbtide._offload._layer_record import LayerRecord
from ebbtide._offload._options import Options
from ebbtide._offload._pieces import Form, Policy
from ebbtide._offload._store import KeepStore
from torch.utils._python_dispatch import TorchDispatchMode

KEEP, SWAP, RECOMPUTE = Policy.KEEP, Policy.SWAP, Policy.RECOMPUTE


class Products(TorchDispatchMode):
    """Counts the matrix products that take this weight: for its results, and for its inputs' gradients."""

    def __init__(self, weight):
        super().__init__()
        self._weight = weight.data_ptr()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func in (torch.ops.aten.mm.default, torch.ops.aten.addmm.default):
            self.count += any(operand.data_ptr() == self._weight for operand in args)
        return func(*args, **(kwargs or {}))


def products_of_a_step(model, weight, policy, mini_sequence, steps=3):
    """Products with `weight` in the last of some steps: (in forward, in backward)."""
    cuts = wrap_layers(model, Options(mini_sequence=mini_sequence, keep_last=0), om.CopyStore(), om.all_of(policy))
    for _ in range(steps):
        with Products(weight) as forward:
            loss = om.body_loss(model, om.tokens(50))
        with Products(weight) as backward:
            loss.backward()
    cuts.undo()
    return forward.count, backward.count


@pytest.fixture
def llama():
    return om.make("llama", torch.float32, num_hidden_layers=1)


@pytest.mark.parametrize("policy", [KEEP, SWAP])
def test_queries_of_one_piece_are_projected_once(llama, policy):
    queries = om.layers_of(llama)[0].self_attn.q_proj.weight
    assert products_of_a_step(llama, queries, policy, 50) == (1, 1)
    assert products_of_a_step(llama, queries, policy, 25) == (4, 2)


def test_queries_of_one_piece_are_computed_again_once(llama):
    queries = om.layers_of(llama)[0].self_attn.q_proj.weight
    assert products_of_a_step(llama, queries, RECOMPUTE, 50) == (1, 1 + 1)


def test_queries_of_several_pieces_are_computed_again_for_attention_alone(llama):
    # Not for the graph from the input to them, which saves none of them; nor in forward for what comes after attention.
    queries = om.layers_of(llama)[0].self_attn.q_proj.weight
    assert products_of_a_step(llama, queries, RECOMPUTE, 25) == (2, 2 * (1 + 1))


def test_where_there_is_room_queries_of_several_pieces_are_made_once_for_both_parts(llama, monkeypatch):
    monkeypatch.setattr(LayerRecord, "keeps_before", property(lambda self: True, lambda self, value: None), raising=False)
    cuts = wrap_layers(llama, Options(mini_sequence=25, keep_last=0), om.CopyStore(), om.all_of(RECOMPUTE))
    norm = om.layers_of(llama)[0].input_layernorm
    runs = []
    norm.register_forward_hook(lambda *_: runs.append(None))
    for _ in range(2):
        runs.clear()
        om.body_loss(llama, om.tokens(50)).backward()
    cuts.undo()
    assert len(runs) == 4 + 2


@pytest.mark.parametrize("architecture", ["llama", "cohere", "gpt2", "qwen3_next"])
def test_that_changes_no_bit(monkeypatch, architecture):
    model = om.make(architecture, torch.float32)

    def gradients():
        model.zero_grad()
        cuts = wrap_layers(model, Options(mini_sequence=16, keep_last=0), om.CopyStore(), om.all_of(RECOMPUTE))
        for step in range(2):
            om.body_loss(model, om.tokens(50, seed=step)).backward()
        cuts.undo()
        return {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}

    apart = gradients()
    monkeypatch.setattr(LayerRecord, "keeps_before", property(lambda self: True, lambda self, value: None), raising=False)
    om.assert_same_bits(gradients(), apart)


@pytest.mark.parametrize("policy", [KEEP, RECOMPUTE])
def test_a_layer_whose_parts_share_what_they_save_runs_them_apart(policy):
    # One norm in front of attention and MLP: what it saved would be used up by the MLP's backward.
    cohere = om.make("cohere", torch.float32, num_hidden_layers=1)
    queries = om.layers_of(cohere)[0].self_attn.q_proj.weight
    forward, backward = products_of_a_step(cohere, queries, policy, 50)
    # Without tapes, as where all of it is computed again, forward is one run all the same.
    assert forward == (2 if policy is KEEP else 1)
    assert backward == 1 + (policy is RECOMPUTE)
    assert products_of_a_step(cohere, queries, policy, 50, steps=1)[0] == 1  # which tells


class WithQueries(torch.nn.Module):
    """An MLP whose result also depends on what projects the queries, when it is told so."""

    def __init__(self, mlp, queries, has_graph):
        super().__init__()
        self.mlp, self.queries, self.has_graph, self.is_on = mlp, queries, has_graph, False

    def forward(self, x):
        if not self.is_on:
            return self.mlp(x)
        rows = self.queries(x) if self.has_graph else self.queries(x).detach().sign()
        return self.mlp(x) * rows.mean(-1, keepdim=True)


@pytest.mark.parametrize(
    ("has_graph", "is_on"), [(True, [True] * 3), (True, [False] * 3), (True, [False, True, False]), (False, [True] * 3)]
)
def test_queries_that_a_layer_needs_elsewhere_are_computed_there(has_graph, is_on):
    model = om.make("llama", torch.float64, num_hidden_layers=1)
    layer, found = om.layers_of(model)[0], []
    layer.mlp = mlp = WithQueries(layer.mlp, layer.self_attn.q_proj, has_graph)
    for mini_sequence in (None, 25):
        cuts = mini_sequence and wrap_layers(
            model, Options(mini_sequence=mini_sequence, keep_last=0), om.CopyStore(), om.all_of(RECOMPUTE)
        )
        steps = []
        for step, mlp.is_on in enumerate(is_on):
            model.zero_grad()
            om.body_loss(model, om.tokens(50, seed=step)).backward()
            steps.append([parameter.grad.clone() for parameter in layer.parameters()])
        found.append(steps)
        if cuts:
            cuts.undo()
    torch.testing.assert_close(found[1], found[0], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("mini_sequence", "pieces"), [(50, 1), (25, 2)])
def test_a_layers_last_product_is_not_computed_again(llama, mini_sequence, pieces):
    down = om.layers_of(llama)[0].mlp.down_proj.weight
    assert products_of_a_step(llama, down, RECOMPUTE, mini_sequence, steps=1)[1] == 2 * pieces  # it is measured
    assert products_of_a_step(llama, down, RECOMPUTE, mini_sequence) == (pieces, pieces)


def test_a_product_that_a_norm_takes_is_computed_again():
    gemma = om.make("gemma2", torch.float32, num_hidden_layers=1)
    down = om.layers_of(gemma)[0].mlp.down_proj.weight
    assert products_of_a_step(gemma, down, RECOMPUTE, 50) == (1, 1 + 1)


class Layer(torch.nn.Module):
    """A layer that offers its parts. Its end may be changed while it trains."""

    def __init__(self):
        super().__init__()
        self.q, self.up, self.down = (torch.nn.Linear(*size) for size in ((6, 18), (6, 10), (10, 6)))
        self.end = lambda x, rows: x + 0.5 * rows

    def before_attention(self, x):
        return self.q(x).chunk(3, dim=-1)

    def attention(self, q, k, v):
        return torch.softmax(q @ k.transpose(1, 2), dim=-1) @ v

    def after_attention(self, x, out):
        return self.end(x + out, self.down(torch.tanh(self.up(x + out))))

    def forward(self, x):
        return self.after_attention(x, self.attention(*self.before_attention(x)))


def gradients_of_steps(layer, ends, policy=None, mini_sequence=16, tokens=16):
    """Of each step, in which the layer ends like this."""
    model = torch.nn.Sequential(layer)
    cuts = policy and wrap_layers(
        model, Options(mini_sequence=mini_sequence, keep_last=0), KeepStore(), om.all_of(policy)
    )
    found = []
    for end in ends:
        layer.end = end
        model.zero_grad()
        x = torch.linspace(-1, 1, 6 * tokens).view(1, tokens, 6).requires_grad_()
        (model(x) ** 2).sum().backward()
        found.append([x.grad, *(parameter.grad for parameter in layer.parameters())])
    if cuts:
        cuts.undo()
    return found


ENDS = {
    "a sum": lambda x, rows: x + rows,
    "a product with itself": lambda x, rows: x + rows * rows,
    "a quotient": lambda x, rows: x + 1 / (3 + rows),
    "a constant's quotient": lambda x, rows: x + rows / 3,
    "a sum and a square": lambda x, rows: x + rows + torch.tanh(rows),
    "a clamp": lambda x, rows: x + rows.clamp(-0.1, 0.1),
    "a choice": lambda x, rows: x + torch.where(rows.detach() > 0, 2.0, 3.0) * rows,
    "its own part of a constant": lambda x, rows: x * torch.sign(rows.detach()) + rows,
    "a mean without a graph": lambda x, rows: x * rows.detach().mean(-1, keepdim=True) + rows,
    "in place": lambda x, rows: rows.add_(x).tanh_(),
    "views": lambda x, rows: torch.cat([x[..., :3], rows[..., 3:].contiguous()], dim=-1).view(1, -1, 6),
}


@pytest.mark.parametrize("mini_sequence", [16, 8])
@pytest.mark.parametrize("name", ENDS)
def test_whatever_becomes_of_the_last_product_gradients_are_right(name, mini_sequence):
    torch.manual_seed(3)
    layer = Layer()
    wanted = gradients_of_steps(layer, [ENDS[name]] * 3)
    found = gradients_of_steps(layer, [ENDS[name]] * 3, RECOMPUTE, mini_sequence)
    torch.testing.assert_close(found, wanted)
    kept = gradients_of_steps(layer, [ENDS[name]] * 3, KEEP, mini_sequence)
    assert all(map(torch.equal, itertools.chain(*found), itertools.chain(*kept)))


def test_a_layer_that_comes_to_need_its_last_product_gets_it():
    torch.manual_seed(3)
    layer = Layer()
    ends = [ENDS[name] for name in ("a sum", "a sum", "a product with itself", "a sum", "a clamp")]
    torch.testing.assert_close(gradients_of_steps(layer, ends, RECOMPUTE), gradients_of_steps(layer, ends))


def test_a_layer_that_needs_its_last_product_for_many_tokens_alone_gets_it():
    # Few tokens show that it is not needed; the runs of all of them that it is, each time.
    torch.manual_seed(3)
    layer = Layer()
    ends = [lambda x, rows: x + rows * rows if rows.shape[1] > 32 else x + rows] * 4
    found = gradients_of_steps(layer, ends, RECOMPUTE, 40, tokens=40)
    torch.testing.assert_close(found, gradients_of_steps(layer, ends, tokens=40))


@pytest.mark.parametrize("is_replaced", [False, True])
def test_what_a_layer_remembers_of_its_last_product_is_no_made_up_value(is_replaced):
    layer = Layer()
    layer.register_buffer("most", torch.zeros(()))

    def end(x, rows):
        most = torch.maximum(layer.most, rows.detach().abs().max())
        layer.most = most if is_replaced else layer.most.copy_(most)
        return x + rows

    gradients_of_steps(layer, [end] * 3, RECOMPUTE)
    assert 0 < layer.most.item() < 100


def test_a_call_without_tokens_is_the_layers_own():
    layer = Layer()
    model = torch.nn.Sequential(layer)
    cuts = wrap_layers(model, Options(), KeepStore(), om.all_of(RECOMPUTE))
    empty = torch.zeros(1, 0, 6, requires_grad=True)
    model(empty).sum().backward()
    assert empty.grad.shape == (1, 0, 6)
    assert cuts.form(1, 0) == Form()
    cuts.undo()


def test_a_hook_on_the_last_product_sees_its_result():
    layer, seen = Layer(), []
    layer.down.register_forward_hook(lambda module, args, result: seen.append(result.abs().max().item()))
    gradients_of_steps(layer, [ENDS["a sum"]] * 2, RECOMPUTE)
    assert len(seen) >= 4
    assert min(seen) > 0
