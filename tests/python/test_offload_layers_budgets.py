"""Budgets of host and device memory: never exceeded, not in the first step either, and one clear line where
they hold too little."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed here")
pytest.importorskip("transformers", reason="transformers is not installed here")

import offload_models as om
from conftest import our_lines
from ebbtide import EbbtideError
from ebbtide._offload._layer import wrap_layers
from ebbtide._offload._options import Options
from ebbtide._offload._store import KeepStore
from ebbtide._offload._swap_store import SwapStore

LAYERS, TOKENS, BATCH = 6, 120, 2
CPU = torch.device("cpu")
INPUT = BATCH * TOKENS * om.HIDDEN * 4
STATISTICS = BATCH * TOKENS * om.HEADS * 4
ALWAYS = 2 * INPUT + STATISTICS
PIECE = 50
SPARE = 1 << 30  # host budgets from this size on pin 16 MiB more than they use


@pytest.fixture(scope="module")
def model():
    return om.make("llama", torch.float32, num_hidden_layers=LAYERS)


@pytest.fixture(scope="module")
def expected(model):
    return run(model, KeepStore())[0]


def run(model, store, steps=1, **changes):
    """The last step's loss and gradients, counts, and the most bytes ever kept on the device."""
    cuts = wrap_layers(model, Options(**{"mini_sequence": PIECE, "keep_last": 0, **changes}), store)
    kept, most = cuts.shared.at(CPU).kept, 0

    def look(*_):
        nonlocal most
        most = max(most, kept.held_bytes + (store.held_bytes if store is not kept else 0))

    hooks = [layer.register_forward_hook(look) for layer in om.layers_of(model)]
    try:
        for _ in range(steps):
            found = om.gradients(model, om.tokens(TOKENS, BATCH))
    finally:
        counts = cuts.counts()
        cuts.undo()
        for hook in hooks:
            hook.remove()
    assert kept.held_bytes == 0 and store.held_bytes == 0
    return found, counts, most


@pytest.mark.parametrize("alpha", [0.0, 1.0])
@pytest.mark.parametrize("host", [0, 7 * INPUT + 12_345, 40 * INPUT])
@pytest.mark.parametrize("hbm", [0, 3 * INPUT, 40 * INPUT])
def test_neither_budget_is_exceeded_in_any_step(model, expected, alpha, host, hbm):
    store = SwapStore("cpu", host)
    if host + hbm < LAYERS * INPUT:  # not even the layers' inputs
        with pytest.raises(EbbtideError, match="raise EBBTIDE_HOST .* or EBBTIDE_HBM .*shorter"):
            run(model, store, alpha=alpha, hbm=hbm)
    else:
        found, _, most = run(model, store, steps=2, alpha=alpha, hbm=hbm)
        assert most <= hbm
        om.assert_same_bits(found, expected)
    assert store.stats().peak_live_bytes <= host
    assert store.stats().live_bytes == 0
    store.close()


def test_attention_runs_again_in_as_many_layers_as_it_must_and_one_line_says_so(model, capsys):
    # GIVEN memory for all inputs and for three attention outputs, more on the device than on the host
    host, hbm = 4 * INPUT, 3 * ALWAYS - INPUT + (16 << 10)
    store = SwapStore("cpu", host)
    _, counts, most = run(model, store, hbm=hbm)
    assert [tally.attention_forwards for tally in counts] == [2, 2, 2, 1, 1, 1]
    assert host + hbm - INPUT - STATISTICS < store.stats().peak_live_bytes + most
    (line,) = our_lines(capsys.readouterr().err)
    assert "attention's outputs of 6 layers do not fit" in line and "EBBTIDE_HBM" in line
    store.close()


def test_a_strict_program_stops_before_anything_is_saved(model):
    store = SwapStore("cpu", 4 * INPUT)
    with pytest.raises(EbbtideError, match='do not fit.*or allow attention="recompute"'):
        run(model, store, hbm=4 * INPUT, strict=True)
    assert store.stats().swapped_out_bytes == 0
    store.close()


def test_two_graphs_share_the_device_budget(model):
    hbm = int(2.5 * LAYERS * ALWAYS)
    cuts = wrap_layers(model, Options(mini_sequence=PIECE, hbm=hbm), KeepStore())
    losses = [om.body_loss(model, om.tokens(TOKENS, BATCH, seed)) for seed in (1, 2)]
    assert 4 * LAYERS * INPUT <= cuts.shared.at(CPU).kept.held_bytes <= hbm
    with pytest.raises(EbbtideError, match="the inputs of 6 layers weigh"):
        om.body_loss(model, om.tokens(TOKENS, 3 * BATCH))
    sum(losses).backward()
    cuts.undo()


def test_what_was_expected_to_be_small_is_measured_before_it_is_saved(model, expected, monkeypatch):
    from ebbtide._offload import _layer_budget

    monkeypatch.setattr(_layer_budget, "bytes_per_token", lambda *_: 1)
    store = SwapStore("cpu", int(LAYERS * ALWAYS * 1.2))
    found, counts, most = run(model, store, alpha=1.0, hbm=0)
    assert most == 0
    assert all(0 < tally.recomputed_bytes for tally in counts)
    om.assert_same_bits(found, expected)
    store.close()


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_host_memory_is_pinned_once_the_first_layer_is_known(model, alpha):
    model = om.make("llama", torch.float32, num_hidden_layers=LAYERS, hidden_size=512)
    store = SwapStore("cpu", SPARE - 1)
    run(model, store, alpha=alpha)
    first = store.stats()
    assert first.pinnings <= 4
    assert first.peak_live_bytes <= first.pinned_bytes <= 1.05 * first.peak_live_bytes + (2 << 20)
    run(model, store, alpha=alpha)
    assert store.stats().pinnings == first.pinnings
    store.close()


def test_room_is_without_end_where_nothing_limits_it(model):
    cuts = wrap_layers(model, Options(), om.CopyStore())
    room = cuts.shared.at(CPU).room(None)
    assert room.host == room.device == math.inf
    cuts.undo()
