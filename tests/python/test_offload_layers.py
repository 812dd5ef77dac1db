"""Layers cut into pieces compute what whole layers compute: every architecture, length and input."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed here")
pytest.importorskip("transformers", reason="transformers is not installed here")

import offload_models as om
from ebbtide._offload._layer import wrap_layers
from ebbtide._offload._options import Options
from ebbtide._offload._store import KeepStore

ALGEBRA = 1e-10  # float64: sums in another order, nothing else


def in_pieces(model, *args, piece=16, store=None, policies=None, options=None, **kwargs):
    """Loss and gradients with the layers cut, and the layers' counts."""
    options = options or Options(mini_sequence=piece, keep_last=0)
    cuts = wrap_layers(model, options, store or KeepStore(), policies)
    try:
        return om.gradients(model, *args, **kwargs), cuts.counts()
    finally:
        cuts.undo()


def assert_same_algebra(model, *args, piece=16, options=None, **kwargs):
    expected = om.gradients(model, *args, **kwargs)
    settings = {"piece": piece, "options": options, "store": om.CopyStore()}
    found, counts = in_pieces(model, *args, **settings, **kwargs)
    assert om.worst_error(found, expected) <= ALGEBRA
    return counts


@pytest.mark.parametrize("architecture", om.ARCHITECTURES)
@pytest.mark.parametrize("attention", ["auto", "save"])
def test_every_architecture_is_cut_and_exact(architecture, attention):
    model = om.make(architecture)
    options = Options(mini_sequence=16, keep_last=0, attention=attention)
    counts = assert_same_algebra(model, om.tokens(50, batch=2), options=options)
    is_heavy = architecture == "gemma2" and attention == "auto"  # eager, with soft caps
    for layer, tally in zip(om.layers_of(model), counts, strict=True):
        if getattr(layer, "block_type", None) == "linear_attention":
            assert tally.whole_because == "it calls no attention that transformers knows of"
        else:
            assert tally.whole_because is None
            assert tally.attention_forwards == (2 if is_heavy else 1)


@pytest.mark.parametrize("architecture", ["llama", "gemma3_text", "gpt2"])
@pytest.mark.parametrize("length", [1, 63, 64, 65, 200])
def test_lengths_around_a_piece(architecture, length):
    assert_same_algebra(om.make(architecture), om.tokens(length), piece=64)


@pytest.mark.parametrize("length", [1000, 4097])
def test_long_sequences(length):
    model = om.make("llama", num_hidden_layers=1)
    assert_same_algebra(model, om.tokens(length), piece=256)


@pytest.mark.parametrize("piece", [1, 7, 8, 30, 64])
def test_pieces_that_equal_other_sizes_of_the_model(piece):
    # Heads, head width, hidden width and batch: no dimension may be taken for the tokens.
    assert_same_algebra(om.make("llama"), om.tokens(64, batch=4), piece=piece)
    assert_same_algebra(om.make("llama"), om.tokens(32, batch=2), piece=piece)
    assert_same_algebra(om.make("llama"), om.tokens(8, batch=8), piece=piece)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding(attention, side):
    model = om.make("llama", attn_implementation=attention)
    mask = torch.ones(2, 50, dtype=torch.long)
    mask[1, slice(0, 13) if side == "left" else slice(37, 50)] = 0
    position_ids = (mask.cumsum(-1) - 1).clamp_min(0)
    assert_same_algebra(
        model, om.tokens(50, batch=2), attention_mask=mask, position_ids=position_ids
    )


def test_position_ids_that_begin_anywhere():
    positions = torch.arange(50)[None] + torch.tensor([[3], [700]])
    assert_same_algebra(om.make("qwen3"), om.tokens(50, batch=2), position_ids=positions)


@pytest.mark.parametrize("architecture", ["llama", "mistral", "gemma2"])
def test_packed_sequences(architecture):
    positions = torch.cat([torch.arange(n) for n in (5, 20, 1, 24)])[None]
    assert_same_algebra(om.make(architecture), om.tokens(50), position_ids=positions)


def test_embeddings_as_input_get_their_gradient():
    model = om.make("llama")
    embedded = model.get_input_embeddings()(om.tokens(50)).detach().requires_grad_()

    def gradient():
        out = model.base_model(inputs_embeds=embedded).last_hidden_state
        return torch.autograd.grad(out.square().sum(), embedded)[0]

    with om.in_double():
        expected = gradient()
        cuts = wrap_layers(model, Options(mini_sequence=16), KeepStore())
        found = gradient()
        cuts.undo()
    torch.testing.assert_close(found, expected, rtol=ALGEBRA, atol=ALGEBRA)


@pytest.mark.parametrize(
    ("length", "layers"), [(1, 2), (63, 2), (64, 2), (65, 2), (1000, 2), (4097, 1)]
)
def test_bf16_gradients_are_no_worse_than_those_of_whole_layers(length, layers):
    # StreamBP's rule: against float32, at most 1.5 times the error of the model as it is.
    ids = om.tokens(length)
    model = om.make("llama", torch.float32, num_hidden_layers=layers)
    model.to(torch.bfloat16)
    weights = {name: value.float() for name, value in model.state_dict().items()}
    reference = om.make("llama", torch.float32, num_hidden_layers=layers)
    reference.load_state_dict(weights)
    exact = om.gradients(reference, ids)
    whole = om.gradients(model, ids)
    pieces, _ = in_pieces(model, ids, piece=64)

    def error(found):
        # A single token attends to itself, whatever q and k are: their gradients are exactly zero.
        wrong = {n: float((found[n].float() - exact[n]).norm()) for n in exact}
        assert all(wrong[n] == 0 for n in exact if not exact[n].any())
        return sum(wrong[n] / float(exact[n].norm()) for n in exact if wrong[n])

    assert 0 < error(pieces) <= 1.5 * error(whole)


def test_a_single_piece_changes_no_bit_of_the_loss():
    model, ids = om.make("llama", torch.float32), om.tokens(40, batch=2)
    found, _ = in_pieces(model, ids, piece=40)
    assert torch.equal(found["loss"], om.gradients(model, ids)["loss"])


@pytest.mark.parametrize("without_grad", [torch.no_grad, torch.inference_mode])
def test_evaluation_runs_in_pieces_and_saves_nothing(without_grad):
    model, ids, store = om.make("llama").eval(), om.tokens(50), om.CopyStore()
    with without_grad():
        expected = om.body_loss(model, ids)
        cuts = wrap_layers(model, Options(mini_sequence=16, keep_last=0), store)
        found = om.body_loss(model, ids)
        cuts.undo()
    torch.testing.assert_close(found, expected, rtol=ALGEBRA, atol=ALGEBRA)
    assert store.taken == 0


def test_generation_with_a_cache_is_left_alone():
    model = om.make("llama", torch.float32).eval()
    ids = om.tokens(9)
    settings = {"max_new_tokens": 5, "do_sample": False, "use_cache": True}
    expected = model.generate(ids, **settings)
    cuts = wrap_layers(model, Options(mini_sequence=4), KeepStore())
    assert torch.equal(model.generate(ids, **settings), expected)
    cuts.undo()


def test_training_with_the_cache_on_by_default():
    model, ids = om.make("llama", use_cache=True), om.tokens(50)
    assert_same_algebra(model, ids)


def test_torch_compile_leaves_cut_layers_as_they_are():
    model, ids = om.make("llama"), om.tokens(50)
    expected = om.gradients(model, ids)
    cuts = wrap_layers(model, Options(mini_sequence=16, keep_last=0), om.CopyStore())
    model.model.forward = torch.compile(model.model.forward, backend="eager")
    with om.in_double():
        found = om.gradients(model, ids)
    del model.model.forward
    assert [tally.attention_forwards for tally in cuts.counts()] == [1, 1]
    cuts.undo()
    assert om.worst_error(found, expected) <= 1e-5  # outside of the layers float32 is left as it is


def test_undo_restores_the_layers_own_forward():
    model = om.make("llama")
    wrap_layers(model, Options(), KeepStore()).undo()
    assert all("forward" not in layer.__dict__ for layer in om.layers_of(model))
