"""Layers that keep all they save on the device: which they are, that they change no bit, and what "auto" makes of room."""

from __future__ import annotations

import copy
import gc
import itertools
import random

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import ebbtide  # noqa: E402
import offload_models as om  # noqa: E402
from ebbtide._offload import _auto_alpha, _auto_keeping, _keeping, _peak, _report  # noqa: E402
from ebbtide._offload._keeping import Keeping, Level, Weight, levels_of  # noqa: E402
from ebbtide._offload._layer import wrap_layers  # noqa: E402
from ebbtide._offload._observed import Footing  # noqa: E402
from ebbtide._offload._offload_stats import AllOffload  # noqa: E402
from ebbtide._offload._offloaded import offloaded_of  # noqa: E402
from ebbtide._offload._options import Options  # noqa: E402
from ebbtide._offload._length import Length  # noqa: E402
from ebbtide._offload._spare import Spare  # noqa: E402
from ebbtide._stats import StepPlan  # noqa: E402
from test_offload_api import batch, make, train  # noqa: E402
from test_offload_choosing import STEPS_TO_SETTLE, clock, let_forward_take, planner  # noqa: E402, F401

EVERYTHING = 1 << 40
K, S = True, False


def most(layers, last, room):
    """The layers that keep what they save, of such that weigh as much as one another."""
    usual, _ = levels_of([Weight(1.0, 0)] * layers, last, room)
    return usual.stays if usual is not None else ()


@pytest.mark.parametrize(
    ("room", "stays"),
    [(8, (K,) * 8), (7, (S,) + (K,) * 7), (4, (S, K) * 4), (3, (S, S, K, S, S, K, S, K)), (2, (S, S, S, K) * 2), (1, (S,) * 7 + (K,)), (0, ())],
)
def test_as_many_layers_as_there_is_room_for_lie_evenly_among_the_others_and_the_last_is_one(room, stays):
    assert most(8, 1, room) == stays


def test_last_layers_stay_whatever_lies_before_them():
    assert most(6, 3, 4) == (S, K, S, K, K, K)
    assert most(6, 3, 3) == (S, S, S, K, K, K)
    assert most(6, 3, 2) == ()
    assert most(6, 0, 1) == (S, S, S, K, S, S) and most(6, 0, 0) == ()


def test_shorter_calls_keep_all_or_half_of_it_and_longer_ones_half_of_what_there_is_room_for():
    usual, levels = levels_of([Weight(1.0, 0)] * 9, 1, 4)
    assert sum(usual.stays) == 4 and usual in levels
    assert [sum(level.stays) for level in levels] == [9, 5, 4, 2, 1]
    assert levels_of([Weight(1.0, 0)] * 9, 1, 0.5)[0] is None


@pytest.mark.parametrize("seed", range(40))
def test_what_is_kept_fits_and_last_layers_are_among_it(seed):
    draw = random.Random(seed)
    cut = [1000 * draw.choice([0.0, draw.random(), 5 * draw.random()]) for _ in range(draw.randrange(1, 40))]
    weights = [Weight(one, draw.choice([0.0, 9000 * draw.random()]) * (seed % 2), draw.random()) for one in cut]
    last, room = draw.randrange(3), 1.5 * draw.random() * sum(map(sum, weights))
    usual, levels = levels_of(weights, last, room)
    assert usual is None or (usual.total <= room and usual in levels)
    totals = [level.total for level in levels]
    assert totals == sorted(totals, reverse=True) and len({(one.stays, one.attention) for one in levels}) == len(levels)
    for level in levels:
        assert level.kept == int(sum(one.cut for one in itertools.compress(weights, level.stays)))
        square = sum(one.whole for one in itertools.compress(weights, level.stays))
        assert level.square == int(square + sum(one.attention for one in itertools.compress(weights, level.attention)))
        assert not level.attention or all(level.stays)
        assert len(level.stays) == len(weights) and all(level.stays[max(0, len(weights) - last) :])
        assert any(level.stays)


@pytest.mark.parametrize(
    ("room", "layers", "attention"), [(6, 3, ()), (8, 4, ()), (17, 4, ()), (18, 4, (S, S, S, K)), (38, 4, (S, K, K, K)), (48, 4, (K,) * 4)]
)
def test_heavy_attention_is_kept_where_all_layers_keep_everything_else_beginning_with_the_last(room, layers, attention):
    usual, levels = levels_of([Weight(2.0, 10.0)] * 4, 1, room)
    assert (sum(usual.stays), usual.attention) == (layers, attention)
    assert [sum(level.attention) for level in levels if all(level.stays)][-1] == 0 and levels[0].attention == (K,) * 4


class Room:
    """Plays the device: how much has_room was asked for, and whether it is there."""

    def __init__(self, monkeypatch, there=EVERYTHING):
        self.there, self.asked = there, []
        monkeypatch.setattr(_keeping, "has_room_on", self)
        monkeypatch.setattr(_keeping, "fragment_bytes", lambda _: 0)

    def __call__(self, device, input_bytes, fetched):
        self.asked.append(fetched)
        return fetched <= self.there


def keeping(*stays, kept=0, attention=()):
    level = Level(stays, kept, 0, attention)
    return Keeping(level, (level,), Length(100, 50), fixed=0, varying=1)


def test_a_longer_call_is_thought_to_need_as_much_as_its_square_and_keeps_fewer_layers(monkeypatch):
    room = Room(monkeypatch, there=5000)
    levels = Level((K, K, K, K), 8000), Level((S, K, S, K), 4000), Level((S, S, S, K), 2000)
    chosen = Keeping(levels[1], levels, Length(64, 64), fixed=300, varying=700)
    found = [chosen.level(torch.device("cpu"), Length(rows, rows), 256, gradients=100) for rows in (32, 64, 96, 128)]
    # THEN it takes what is kept, gradients that are not there yet, and what grows with the square
    assert found == [Level(levels[0].stays, 4000), levels[1], Level(levels[2].stays, 3000), None]
    few = [4900, 8900, 4900, 12000 + 200 + 1575, 6000 + 200 + 1575, 3000 + 200 + 1575]
    assert room.asked == [*few, 16000 + 3000, 8000 + 3000, 4000 + 3000]


def test_of_a_longer_call_scores_grow_with_the_square_and_of_fewer_sequences_as_they_do():
    level = Level((K, K), 100, 1000, (S, K))
    grown = [(0.5, 0.25), (0.5, 0.5), (1.0, 1.0), (2.0, 2.0), (2.0, 4.0)]
    assert [level.at(*each).total for each in grown] == [50 + 500, 50 + 500, 100 + 1000, 200 + 2000, 200 + 4000]
    assert level.at(2.0, 4.0).attention == (S, K)


def test_as_many_tokens_in_fewer_and_longer_sequences_have_more_scores(monkeypatch):
    Room(monkeypatch, there=1000)
    chosen = Keeping(Level((K, K), 100, 100), (Level((K, K), 100, 100), Level((S, K), 50, 50)), Length(4096, 512), 0, 100)
    found = [chosen.level(torch.device("cpu"), Length(rows, tokens), 0, 0) for rows, tokens in [(4096, 512), (4096, 1024), (4096, 4096)]]
    assert found == [Level((K, K), 100, 100), Level((K, K), 100, 200), None]


@pytest.mark.parametrize("room", [3000, 5500, 8000, 14000, 16050])
def test_of_unlike_layers_as_many_bytes_are_kept_as_there_is_room_for(room):
    """Evenly may be those alone that weigh little."""
    weights = [Weight(0.0, 0.0, size) for size in (2500, 2500, 350) * 3]
    usual, levels = levels_of(weights, 0, room)
    assert 0.5 * room < usual.total <= room
    assert [level.total for level in levels] == sorted((level.total for level in levels), reverse=True)


def run(model, store, steps=2, length=50, **options):
    """Losses, the last gradients and what each layer did."""
    cuts = wrap_layers(model, Options(**{"keep_last": 0, "mini_sequence": 16, **options}), store)
    found = {}
    for step in range(steps):
        found.update({f"{step}, {name}": value for name, value in om.gradients(model, om.tokens(length, 2, step)).items()})
    counts = cuts.counts()
    cuts.undo()
    return found, counts


@pytest.mark.parametrize("stays", list(itertools.product([S, K], repeat=3)))
@pytest.mark.parametrize(("alpha", "mini_sequence"), [(0.0, 50), (0.5, 16), (1.0, 16)])
def test_keeping_changes_no_bit_and_nothing_of_it_is_swapped_or_recomputed(monkeypatch, stays, alpha, mini_sequence):
    Room(monkeypatch)
    model = om.make("llama", torch.float32, num_hidden_layers=3)
    whole, _ = run(model, om.CopyStore(), alpha=alpha, mini_sequence=mini_sequence)
    store = om.CopyStore()
    found, counts = run(model, store, alpha=alpha, mini_sequence=mini_sequence, keeping=keeping(*stays))
    om.assert_same_bits(found, whole)
    assert store.live == 0
    for count, one in zip(counts, stays, strict=True):
        assert (count.kept_bytes > 0) == one and (count.swapped_bytes == 0) == one
        assert not (one and count.recomputed_bytes)
        assert one or (count.recomputed_bytes > 0) == (alpha < 1)


def test_a_forward_without_room_keeps_no_more_than_ever(monkeypatch):
    room = Room(monkeypatch, there=0)
    model = om.make("llama", torch.float32, num_hidden_layers=3)
    plain, expected = run(model, om.CopyStore(), alpha=0.5)
    found, counts = run(model, om.CopyStore(), alpha=0.5, keeping=keeping(S, K, K, kept=1))
    om.assert_same_bits(found, plain)
    assert [one.swapped_bytes for one in counts] == [one.swapped_bytes for one in expected]
    # AND it is asked once a forward, not by each layer
    assert len(room.asked) == 2


def test_layers_keep_what_they_save_behind_others_that_do_not_train(monkeypatch):
    room = Room(monkeypatch)
    model = om.make("llama", torch.float32, num_hidden_layers=4)
    for frozen in (model.get_input_embeddings(), *om.layers_of(model)[:2]):
        frozen.requires_grad_(False)
    _, counts = run(model, om.CopyStore(), keeping=keeping(S, K, K, K))
    assert [one.kept_bytes > 0 for one in counts] == [False, False, True, True] and len(room.asked) == 2


def test_layers_that_keep_what_they_save_are_time_for_the_copies_of_the_others(monkeypatch):
    Room(monkeypatch)
    model = om.make("llama", torch.float32, num_hidden_layers=6)
    store = om.CopyStore()
    run(model, store, steps=1, keeping=keeping(S, K, S, K, S, K))
    # One turn for each layer that is swapped, and at the end what the last two of them saved leaves, too.
    assert store.layers == 3 + 2


@pytest.mark.parametrize("architecture", ["llama", "gemma2", "gpt_oss"])
@pytest.mark.parametrize(("alpha", "mini_sequence"), [(0.0, 80), (0.5, 32)])
def test_heavy_attention_that_is_kept_runs_once_and_changes_no_bit(monkeypatch, architecture, alpha, mini_sequence):
    Room(monkeypatch)
    model = om.make(architecture, torch.float32, attn_implementation="eager", attention_dropout=0.1)
    options = {"alpha": alpha, "mini_sequence": mini_sequence, "length": 160}
    torch.manual_seed(11)
    saved, _ = run(model, om.CopyStore(), attention="save", **options)
    torch.manual_seed(11)
    found, counts = run(model, om.CopyStore(), keeping=keeping(K, K, attention=(S, K)), **options)
    om.assert_same_bits(found, saved)
    assert [one.attention_forwards for one in counts] == [4, 2]
    # AND what is made again is known, and nothing of it counts as saved whatever becomes of the pieces
    scores = 2 * om.HEADS * 160 * 160 * 4
    assert counts[0].scores_bytes > scores and counts[0].kept_bytes + 2 * scores < counts[1].kept_bytes
    assert counts[1].scores_bytes == 0 and counts[1].always_bytes_per_token == 0


@pytest.fixture
def device(monkeypatch):
    """Plays a device: what its room is beside the most that was alive, and what was alive when a forward began."""

    class Device:
        room = EVERYTHING
        model = None
        most = 1000
        footings = itertools.repeat(Footing(0, 100))

    gc.collect()  # models of earlier tests

    def headroom(_):
        chosen = offloaded_of(Device.model)
        shares = chosen._auto_alpha._shares
        return Device.room - (shares.kept_bytes + shares.moving_bytes if chosen.options.keeping else 0)

    monkeypatch.setattr(_peak, "headroom", headroom)
    monkeypatch.setattr(_peak, "most_alive", lambda _: Device.most)
    monkeypatch.setattr(_auto_keeping, "spared_bytes", lambda _: 0)
    monkeypatch.setattr(_auto_keeping, "fragment_bytes", lambda _: 0)
    monkeypatch.setattr(Footing, "of", staticmethod(lambda *_: next(Device.footings)))
    Device.asked = Room(monkeypatch)
    return Device


def settle(device, model, clock, steps=3 * STEPS_TO_SETTLE, tokens=29):  # noqa: F811
    device.model = model
    ebbtide.offload(model, host="64MiB")
    chosen = offloaded_of(model)
    let_forward_take(model, clock, lambda: 3600 * (2 - chosen.options.alpha))
    found = []
    while chosen._auto_alpha._hooks and not chosen._auto_alpha._is_watching and steps > 0:
        found.append(train(model, **batch(tokens)))
        steps -= 1
    return chosen, found


def kept_by(chosen):
    """For each layer whether it keeps all it saves, in calls that have room for the most."""
    return chosen.options.keeping.usual.stays


def first_layer(model, tokens=29):
    """What one that keeps nothing counted in a call."""
    ebbtide.offload(model, alpha=0, host="64MiB")
    train(model, **batch(tokens))
    tally = offloaded_of(model).layers.counts()[0]
    ebbtide.offload(model, off=True)
    return tally


def weight_of(model):
    """Of a layer: bytes that it saves in a call, always and besides."""
    layer = first_layer(model)
    return layer.swapped_bytes, layer.recomputed_bytes


def test_where_there_is_room_all_layers_keep_what_they_save_and_no_bit_changes(native, clock, device):  # noqa: F811
    chosen, found = settle(device, make(num_hidden_layers=4), clock)
    assert kept_by(chosen) == (K,) * 4 and (chosen.options.alpha, chosen.limit) == (0, "")
    assert len(found) < STEPS_TO_SETTLE  # there is no share to try
    for one in found[1:]:
        om.assert_same_bits(one, found[0])
    told = ebbtide.stats().offload.models[-1]
    assert told.kept_layers == 4 and "; 4 layers keep all they save, for there is room; a call saves" in _report.text(AllOffload((told,)))


def test_the_last_layer_alone_keeps_what_it_saves_where_there_is_room_for_no_other(native, clock, device):  # noqa: F811
    model = make(num_hidden_layers=4)
    always, rest = weight_of(model)
    device.room = 2.5 * rest + 6 * always
    chosen, found = settle(device, model, clock)
    assert kept_by(chosen) == (S, S, S, K) and chosen.options.alpha == 1
    for one in found[1:]:
        om.assert_same_bits(one, found[0])
    told = ebbtide.stats().offload.models[-1]
    assert told.kept_layers == 1 and "; 1 layer keeps all it saves, for there is room; a call saves" in _report.text(AllOffload((told,)))


@pytest.mark.parametrize(("attentions", "kept"), [(4, (K,) * 4), (2.5, (S, S, K, K)), (0.5, ())])
def test_heavy_attention_is_kept_too_as_far_as_there_is_room(native, clock, device, attentions, kept):  # noqa: F811
    model = make(num_hidden_layers=4, attn_implementation="eager")
    seen = first_layer(model, tokens=116)
    always, rest, scores = seen.swapped_bytes, seen.recomputed_bytes, seen.scores_bytes
    assert scores > 4 * always
    device.room = 4 * (always + rest) + rest + 6 * always + attentions * scores
    chosen, found = settle(device, model, clock, tokens=116)
    assert kept_by(chosen) == (K,) * 4 and chosen.options.keeping.usual.attention == kept
    for one in found[1:]:
        om.assert_same_bits(one, found[0])
    # AND a forward that has room for more keeps that of all
    train(model, **batch(116))
    assert chosen.layers.shared.level.attention == (K,) * 4


def test_where_there_is_room_for_some_they_lie_evenly_and_shares_of_the_others_are_tried(native, clock, device):  # noqa: F811
    model = make(num_hidden_layers=6)
    always, rest = weight_of(model)
    device.room = 3 * (always + rest) + rest + 6.5 * always  # on their way: a layer's rest, and six times what is always saved
    chosen, found = settle(device, model, clock)
    assert kept_by(chosen) == (S, K, S, K, S, K) and chosen.options.alpha == 1
    for one in found[1:]:
        om.assert_same_bits(one, found[0])
    # AND the device is asked for what all of this takes beside what is alive when a forward begins
    fixed = Spare(model).trained_bytes(torch.device("cpu"))
    device.asked.there = 1.05 * (max(fixed, 1000 - 100 + rest + 2 * always) + 3 * (always + rest))
    train(model)
    assert chosen.layers.shared.kept == (S, K, S, K, S, K)


@pytest.mark.parametrize(("more_takes", "kept"), [(0.9, 4), (1.1, 3)])
def test_more_layers_are_tried_where_there_turns_out_to_be_room_and_stay_if_steps_are_shorter(
    native, clock, device, more_takes, kept  # noqa: F811
):
    model = device.model = make(num_hidden_layers=6)
    always, rest = weight_of(model)
    device.room = 3 * (always + rest) + rest + 6.5 * always
    fixed = Spare(model).trained_bytes(torch.device("cpu"))
    device.asked.there = max(fixed, 1000 + rest + 2 * always) + 4.5 * (always + rest)  # not for all six
    ebbtide.offload(model, host="64MiB")
    chosen = offloaded_of(model)

    def seconds():
        if chosen.kept_layers:  # once steps were seen that keep some, they are found to need less
            device.room = 4 * (always + rest) + rest + 6.5 * always
        return 3600 * (3 - chosen.options.alpha) * (more_takes if chosen.kept_layers > 3 else 1)

    let_forward_take(model, clock, seconds)
    tried = set()
    for _ in range(2 * STEPS_TO_SETTLE):
        train(model)
        tried.add(chosen.kept_layers)
    assert {3, 4} <= tried and sum(kept_by(chosen)) == kept and chosen.options.alpha == 1


def test_a_call_that_is_longer_than_all_before_says_how_many_layers_there_is_room_for(native, clock, device):  # noqa: F811
    model = make(num_hidden_layers=5)
    always, rest = weight_of(model)  # of two sequences of 29 tokens
    device.room = 14 * (always + rest)
    # GIVEN short sequences, with which all fit
    chosen, _ = settle(device, model, clock)
    assert kept_by(chosen) == (K,) * 5 and chosen._auto_alpha._is_watching
    # WHEN one comes that is three times as long, and keeps nothing
    device.asked.there = 0
    train(model, **batch(3 * 29))
    train(model)
    # THEN fewer would fit such a one, and all still do in short ones
    assert chosen.options.keeping.length == Length(3 * 58, 3 * 29) and kept_by(chosen) == (S, S, K, S, K)
    device.asked.there = 14 * (always + rest)
    train(model)
    assert chosen.layers.shared.kept == (K,) * 5


def test_what_was_alive_is_known_to_who_resets_the_peak_before_each_step_and_optimizers_get_room(native, device):
    model = device.model = make()
    peak, here = _peak.Peak(Spare(model)), torch.device("cpu")
    trained = Spare(model).trained_bytes(here)
    ebbtide.offload(model, host="64MiB")
    device.room = 5000
    for live, most in [(100, 900), (150, 800)]:
        device.most = live
        peak.note_begin(here)
        device.most = most
        peak.note_backward(here)
    device.most = 150
    assert peak.bytes(here) == 900 + trained
    # THEN what is beside the peak that torch tells is less by what it does not tell
    assert peak.headroom(here) == 5000 + 150 - (900 + trained)


def test_a_peak_that_is_reset_and_was_never_seen_says_nothing(native, device):
    model = device.model = make()
    peak, here = _peak.Peak(Spare(model)), torch.device("cpu")
    ebbtide.offload(model, host="64MiB")
    for device.most in (900, 100):
        peak.note_begin(here)
    assert peak.headroom(here) is None


@pytest.mark.parametrize("asked", [{"hbm": "1GiB"}, {"mini_sequence": 8}, {"alpha": "memo"}, {"alpha": 0.5}])
def test_nothing_more_is_kept_where_little_memory_or_a_share_is_asked_for(native, clock, device, asked):  # noqa: F811
    model = device.model = make(num_hidden_layers=4)
    ebbtide.offload(model, host="64MiB", **asked)
    let_forward_take(model, clock, lambda: 3600)
    for _ in range(STEPS_TO_SETTLE):
        train(model)
    assert offloaded_of(model).options.keeping is None


def test_nothing_more_is_kept_while_another_model_might_do_so_too(native, clock, device):  # noqa: F811
    other = make()
    ebbtide.offload(other, host="64MiB")
    train(other)
    chosen, _ = settle(device, make(num_hidden_layers=4), clock)
    assert chosen.options.keeping is None


@pytest.mark.parametrize("trained", [0, 3])
def test_a_copy_that_does_not_train_keeps_nobody_from_keeping(native, clock, device, trained):  # noqa: F811
    """As one that averages weights."""
    model = make(num_hidden_layers=4)
    ebbtide.offload(model, host="64MiB", alpha=0)
    for _ in range(trained):
        train(model)
    copied = copy.deepcopy(model)
    chosen, _ = settle(device, model, clock)
    assert kept_by(chosen) == (K,) * 4 and offloaded_of(copied) is not None


def test_an_optimizer_that_has_not_stepped_yet_gets_room_for_its_states(native, clock, device):  # noqa: F811
    model = make(num_hidden_layers=4)
    states = Spare(model).state_bytes(torch.device("cpu"))
    assert states == 8 * sum(one.numel() for one in model.parameters())
    # GIVEN gradients that are summed up, and room for everything but these states
    device.footings, device.room = itertools.repeat(Footing(50, 100)), states
    chosen, _ = settle(device, model, clock)
    assert chosen.options.keeping is None


def test_once_an_optimizer_has_stepped_the_device_is_asked_again(native, clock, device, monkeypatch):  # noqa: F811
    model = make(num_hidden_layers=4)
    monkeypatch.setattr(Spare, "state_bytes", lambda *_: EVERYTHING)  # nothing fits beside states that are to come
    always, rest = weight_of(model)
    device.room = 5 * (always + rest) + 4 * always
    device.footings = itertools.chain([Footing(0, 100)], itertools.repeat(Footing(50, 100), 6), itertools.repeat(Footing(0, 100)))
    chosen, _ = settle(device, model, clock)
    assert kept_by(chosen) == (K,) * 4


def test_a_plan_that_does_not_fit_has_fewer_layers_keep_what_they_save(native, clock, planner, device):  # noqa: F811
    model = planner.model = make(num_hidden_layers=4)
    always, rest = weight_of(model)

    # GIVEN a device that holds the plans of steps that keep at most two layers
    def step_plan(_):
        kept = offloaded_of(model).kept_layers
        return StepPlan(1000 + max(0, kept - 2) * (always + rest) - (kept > 2), 1000)

    _auto_alpha.step_plan = step_plan  # the planner's fixture puts it back
    chosen, _ = settle(device, model, clock)
    assert kept_by(chosen) == (S, K, S, K) and chosen.plan.fits
    assert chosen.options.alpha == 1 and chosen.limit == ""


def test_where_lengths_vary_shares_are_tried_again_when_a_plan_has_fewer_layers_keep(native, clock, planner, device):  # noqa: F811
    model = planner.model = device.model = make(num_hidden_layers=6)
    longest = 140
    always, rest = (longest / 29 * size for size in weight_of(model))
    device.room = 4 * (always + rest) + rest + 8 * always
    planner.height = staticmethod(lambda _: 101 if sum(kept_by(chosen) if chosen.options.keeping else ()) > 2 else 99)
    ebbtide.offload(model, host="64MiB")
    chosen = offloaded_of(model)
    let_forward_take(model, clock, lambda: 3600)
    lengths, tried = iter(range(longest, 29, -1)), []
    while not chosen._auto_alpha._is_watching and chosen._auto_alpha._hooks:
        train(model, **batch(next(lengths)))
        tried.append((chosen.kept_layers, chosen.options.alpha))
    # THEN what fewer layers leave over is measured, beginning with all of it
    assert max(kept for kept, _ in tried) > 2
    assert chosen.kept_layers <= 2 and any(kept <= 2 and alpha > 0 for kept, alpha in tried)
