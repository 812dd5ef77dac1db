"""With the same pieces, what is kept, swapped or recomputed changes no bit of any result."""

from __future__ import annotations

import random

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed here")
pytest.importorskip("transformers", reason="transformers is not installed here")

import offload_models as om
from ebbtide._offload._layer import wrap_layers
from ebbtide._offload._options import Options
from ebbtide._offload._pieces import Policy, choose_piece, choose_policies, cut
from ebbtide._offload._store import KeepStore

KEEP, SWAP, RECOMPUTE = Policy.KEEP, Policy.SWAP, Policy.RECOMPUTE
DROPOUT = {
    "gpt2": {"resid_pdrop": 0.1, "attn_pdrop": 0.1},
    "llama": {"attention_dropout": 0.1},
}


def mixed(seed):
    draw = random.Random(seed)
    choices = {}

    def policies(layer, spans):
        drawn = [draw.choice(list(Policy)) for _ in spans]
        return choices.setdefault((layer, len(spans)), drawn)

    return policies


def train(model, store, policies, steps=3, **changes):
    """Parameters and losses after some steps of AdamW, and the last gradients."""
    state = {name: value.clone() for name, value in model.state_dict().items()}
    options = Options(**{"mini_sequence": 16, "keep_last": 0, **changes})
    cuts = wrap_layers(model, options, store, policies)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    torch.manual_seed(11)
    found = {}
    for step in range(steps):
        optimizer.zero_grad()
        loss = om.body_loss(model, om.tokens(50, batch=2, seed=step))
        loss.backward()
        optimizer.step()
        found[f"loss {step}"] = loss.detach()
    for name, parameter in model.named_parameters():
        found[name] = parameter.detach().clone()
        if parameter.grad is not None:
            found[f"gradient of {name}"] = parameter.grad.clone()
    counts = cuts.counts()
    cuts.undo()
    model.load_state_dict(state)
    return found, counts


@pytest.mark.parametrize("mini_sequence", [16, 50], ids=["pieces", "one run"])
@pytest.mark.parametrize("architecture", om.ARCHITECTURES)
def test_policies_change_no_bit(architecture, mini_sequence):
    model = om.make(architecture, torch.float32)
    kept, _ = train(model, KeepStore(), om.all_of(KEEP), mini_sequence=mini_sequence)
    for policies in (om.all_of(SWAP), om.all_of(RECOMPUTE), mixed(1)):
        found, _ = train(model, om.CopyStore(), policies, mini_sequence=mini_sequence)
        om.assert_same_bits(found, kept)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_share_of_swapped_tokens_changes_no_bit(dtype):
    model = om.make("llama", dtype)
    kept, _ = train(model, KeepStore(), om.all_of(KEEP))
    for eighths in range(9):
        found, _ = train(model, om.CopyStore(), None, alpha=eighths / 8)
        om.assert_same_bits(found, kept)


def test_twenty_steps_change_no_bit():
    model = om.make("qwen3", torch.float32)
    kept, _ = train(model, KeepStore(), om.all_of(KEEP), steps=20)
    found, _ = train(model, om.CopyStore(), mixed(2), steps=20)
    om.assert_same_bits(found, kept)


@pytest.mark.parametrize("mini_sequence", [16, 50], ids=["pieces", "one run"])
@pytest.mark.parametrize("architecture", DROPOUT)
def test_dropout_draws_the_same_numbers_again(architecture, mini_sequence):
    model = om.make(architecture, torch.float32, **DROPOUT[architecture])
    kept, _ = train(model, KeepStore(), om.all_of(KEEP), mini_sequence=mini_sequence)
    for policies in (om.all_of(SWAP), om.all_of(RECOMPUTE), mixed(3)):
        found, _ = train(model, om.CopyStore(), policies, mini_sequence=mini_sequence)
        om.assert_same_bits(found, kept)
    again, _ = train(model, KeepStore(), om.all_of(RECOMPUTE), attention="recompute", mini_sequence=mini_sequence)
    om.assert_same_bits(again, kept)
    without, _ = train(om.make(architecture, torch.float32), KeepStore(), om.all_of(KEEP))
    assert not torch.equal(without["loss 0"], kept["loss 0"])


def test_dropout_differs_between_pieces():
    # All rows are the same but for what is dropped, and that must not repeat.
    model = om.make("gpt2", torch.float32, resid_pdrop=0.5)
    layer = om.layers_of(model)[0]
    cuts = wrap_layers(model, Options(mini_sequence=8), KeepStore())
    x = torch.ones(1, 32, om.HIDDEN, requires_grad=True)
    rows = layer(x, None, None).detach()
    cuts.undo()
    pieces = [rows[0, begin : begin + 8] for begin in range(0, 32, 8)]
    assert not any(torch.allclose(pieces[0], piece, atol=1e-3) for piece in pieces[1:])


def test_autocast_is_the_same_in_recomputation():
    model = om.make("llama", torch.float32)

    def run(policies):
        cuts = wrap_layers(model, Options(mini_sequence=16, keep_last=0), om.CopyStore(), policies)
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = om.body_loss(model, om.tokens(50))
        loss.backward()
        cuts.undo()
        return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}

    kept = run(om.all_of(KEEP))
    om.assert_same_bits(run(om.all_of(RECOMPUTE)), kept)
    om.assert_same_bits(run(mixed(4)), kept)


def test_attention_recomputed_gives_the_bits_of_attention_saved():
    model = om.make("qwen3", torch.float32)
    saved, counts = train(model, om.CopyStore(), mixed(5), steps=2)
    assert [tally.attention_forwards for tally in counts] == [2, 2]
    again, counts = train(model, om.CopyStore(), mixed(5), steps=2, attention="recompute")
    assert [tally.attention_forwards for tally in counts] == [4, 4]
    om.assert_same_bits(again, saved)


def test_the_models_attention_function_runs_once_per_layer_and_step():
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    calls = []
    own = ALL_ATTENTION_FUNCTIONS["sdpa"]

    def counted(module, *args, **kwargs):
        calls.append(module.layer_idx)
        return own(module, *args, **kwargs)

    model = om.make("llama", torch.float32)
    ALL_ATTENTION_FUNCTIONS["sdpa"] = counted
    try:
        train(model, om.CopyStore(), None, steps=2, alpha=0.5)
    finally:
        ALL_ATTENTION_FUNCTIONS["sdpa"] = own
    assert calls == [0, 1, 0, 1]


def test_the_last_layers_stay_on_the_device():
    model, store = om.make("llama", num_hidden_layers=3), om.CopyStore()
    _, counts = train(model, store, om.all_of(SWAP), steps=1, keep_last=2)
    assert [tally.swapped_bytes > 0 for tally in counts] == [True, False, False]
    assert sum(tally.swapped_bytes for tally in counts) == store.taken
    assert store.layers == 3 + 1  # as each layer begins, and as the last one ends
    assert store.prefetched > 0


def test_more_alpha_swaps_more_and_recomputes_less():
    model = om.make("llama", torch.float32)
    counts = [train(model, om.CopyStore(), None, steps=1, alpha=a)[1][0] for a in (0.0, 0.5, 1.0)]
    assert counts[0].swapped_bytes < counts[1].swapped_bytes < counts[2].swapped_bytes
    assert counts[0].recomputed_bytes > counts[1].recomputed_bytes > counts[2].recomputed_bytes == 0


def test_policies_follow_tokens():
    spans = cut(100, 30)
    assert [tuple(span) for span in spans] == [(0, 30), (30, 60), (60, 90), (90, 100)]
    assert choose_policies(spans, 0.0) == (RECOMPUTE,) * 4
    assert choose_policies(spans, 0.5) == (RECOMPUTE, SWAP, RECOMPUTE, SWAP)
    assert choose_policies(spans, 1.0) == (SWAP,) * 4


def test_half_of_single_pieces_is_every_other_layers():
    (whole,) = cut(100, 100)
    assert [choose_policies([whole], 0.5, layer) for layer in range(4)] == [(RECOMPUTE,), (SWAP,)] * 2


class Fused(torch.nn.Module):
    """Layers of one projection whose parts are views of what it returns, interleaved or one behind the other."""

    def __init__(self, lies):
        super().__init__()
        torch.manual_seed(5)
        self.lies = lies
        self.qkv = torch.nn.ModuleList(torch.nn.Linear(32, 96) for _ in range(2))

        def layer(qkv):
            module = torch.nn.Module()
            module.qkv = qkv
            module.before_attention = lambda x: self.split(qkv(x))
            module.attention = lambda *qkv: attend(*qkv)
            module.after_attention = lambda x, out: x + out
            module.forward = lambda x: x + attend(*self.split(qkv(x)))
            return module

        self.layers = torch.nn.ModuleList(map(layer, self.qkv))

    def split(self, rows):
        rows = rows.unflatten(-1, (3, 4, 8))
        return rows.unbind(2) if self.lies == "interleaved" else rows.movedim(2, 0).contiguous().unbind(0)


def attend(*parts):
    parts = [part.transpose(1, 2) for part in parts]
    return torch.nn.functional.scaled_dot_product_attention(*parts, is_causal=True).transpose(1, 2).flatten(2)


@pytest.mark.parametrize("lies", ["interleaved", "behind"])
@pytest.mark.parametrize("store", [om.CopyStore, KeepStore])
def test_a_single_piece_of_a_fused_projection(lies, store):
    model = Fused(lies)
    x = torch.randn(2, 40, 32, generator=torch.Generator().manual_seed(2))

    def gradients(policy):
        cuts = wrap_layers(model, Options(mini_sequence=64, keep_last=0), store(), om.all_of(policy))
        model.zero_grad()
        y = x.clone().requires_grad_()
        out = y
        for layer in model.layers:
            out = layer(out)
        out.pow(2).mean().backward()
        cuts.undo()
        return {"x": y.grad} | {name: p.grad.clone() for name, p in model.named_parameters()}

    again = gradients(RECOMPUTE)
    for policy in (SWAP, KEEP):
        om.assert_same_bits(gradients(policy), again)


def test_a_short_sequence_of_gpt2_is_swapped_whole():
    """Its q, k and v are views of one projection; a piece is all of it."""
    model = om.make("gpt2", torch.float32)
    again, _ = train(model, om.CopyStore(), om.all_of(RECOMPUTE), mini_sequence=64)
    swapped, _ = train(model, om.CopyStore(), om.all_of(SWAP), mini_sequence=64)
    om.assert_same_bits(swapped, again)
