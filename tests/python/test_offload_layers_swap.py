"""Layers whose saved tensors go to host memory through the swap engine: same bits, budgets hold."""

from __future__ import annotations

import copy

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed here")
pytest.importorskip("transformers", reason="transformers is not installed here")

import offload_models as om
from ebbtide._offload._layer import wrap_layers
from ebbtide._offload._options import Options
from ebbtide._offload._pieces import Policy
from ebbtide._offload._store import KeepStore
from ebbtide._offload._swap_store import SwapStore

LAYERS, TOKENS, BATCH = 4, 250, 2
INPUT = BATCH * TOKENS * om.HIDDEN * 4
AMPLE = 1 << 30


@pytest.fixture(scope="module")
def model():
    return om.make("llama", torch.float32, num_hidden_layers=LAYERS)


def run(model, store, steps=2, policies=None, **changes):
    """The last step's loss and gradients, and the layers' counts."""
    options = Options(**{"mini_sequence": 32, "keep_last": 0, **changes})
    cuts = wrap_layers(model, options, store, policies)
    for _ in range(steps):
        found = om.gradients(model, om.tokens(TOKENS, BATCH))
    counts = cuts.counts()
    cuts.undo()
    return found, counts


@pytest.mark.parametrize("alpha", [0.0, 0.375, 1.0])
@pytest.mark.parametrize("budget", [AMPLE, 7 * INPUT, 3 * INPUT + 12_345, 0])
@pytest.mark.parametrize("keep_last", [0, 2])
def test_every_budget_gives_the_same_bits(model, alpha, budget, keep_last):
    expected, _ = run(model, KeepStore())
    store = SwapStore("cpu", budget)
    found, _ = run(model, store, alpha=alpha, keep_last=keep_last)
    stats = store.stats()
    store.close()
    om.assert_same_bits(found, expected)
    assert stats.peak_live_bytes <= budget
    assert stats.live_bytes == 0


def test_attention_recomputed_and_any_policy_with_the_engine(model):
    expected, _ = run(model, KeepStore())
    store = SwapStore("cpu", AMPLE)
    for attention in ("save", "recompute"):
        for policy in Policy:
            found, _ = run(model, store, 1, om.all_of(policy), attention=attention)
            om.assert_same_bits(found, expected)
    store.close()


def test_inputs_and_outputs_of_attention_go_to_the_host_before_anything_else(model):
    # GIVEN host memory for every layer's input, attention's output, and little more
    store = SwapStore("cpu", 9 * INPUT)
    # WHEN all tokens are to be swapped
    _, counts = run(model, store, steps=1, alpha=1.0)
    # THEN no layer keeps anything, and what did not fit is recomputed
    assert sum(tally.kept_bytes for tally in counts) == 0
    assert all(tally.swapped_bytes >= 2 * INPUT for tally in counts)
    assert all(tally.recomputed_bytes > 0 for tally in counts)
    store.close()


def test_what_no_host_memory_is_left_for_stays_on_the_device_split_by_token(model):
    store = SwapStore("cpu", 3 * INPUT)
    _, counts = run(model, store, steps=1, alpha=1.0)
    statistics = BATCH * TOKENS * om.HEADS * 4  # log-sum-exp
    assert sum(tally.swapped_bytes for tally in counts) == pytest.approx(3 * INPUT, rel=0.03)
    kept = LAYERS * (2 * INPUT + statistics) - 3 * INPUT
    assert sum(tally.kept_bytes for tally in counts) == pytest.approx(kept, rel=0.1)
    assert counts[0].kept_bytes == 0 and counts[-1].swapped_bytes == 0
    assert 0 < counts[1].kept_bytes and 0 < counts[1].swapped_bytes
    store.close()


def test_nothing_is_left_on_the_host_when_a_graph_is_dropped(model):
    store = SwapStore("cpu", AMPLE)
    cuts = wrap_layers(model, Options(mini_sequence=32, keep_last=0, alpha=0.5), store)
    loss = om.body_loss(model, om.tokens(TOKENS, BATCH))
    assert store.stats().live_bytes > 0
    del loss
    assert store.stats().live_bytes == 0
    cuts.undo()
    store.close()


def test_a_copy_of_the_model_saves_to_the_same_store(model):
    store = SwapStore("cpu", AMPLE)
    cuts = wrap_layers(model, Options(mini_sequence=32, keep_last=0), store)
    twin = copy.deepcopy(model)
    expected = om.gradients(model, om.tokens(TOKENS, BATCH))
    om.assert_same_bits(om.gradients(twin, om.tokens(TOKENS, BATCH)), expected)
    cuts.undo()
    store.close()


def test_two_forwards_share_the_host_before_their_backwards(model):
    def both():
        model.zero_grad()
        first = om.body_loss(model, om.tokens(TOKENS, BATCH, seed=1))
        second = om.body_loss(model, om.tokens(TOKENS, BATCH, seed=2))
        (first + second).backward()
        return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}

    def with_store(store):
        cuts = wrap_layers(model, Options(mini_sequence=32, keep_last=1, alpha=1.0), store)
        found = both()
        cuts.undo()
        return found

    expected = with_store(KeepStore())
    store = SwapStore("cpu", 10 * INPUT)
    om.assert_same_bits(with_store(store), expected)
    assert store.stats().peak_live_bytes <= 10 * INPUT
    store.close()
