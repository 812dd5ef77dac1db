"""The choice of what is kept, swapped and recomputed; arithmetic of decoders. No torch."""

from __future__ import annotations

import itertools
import random

import pytest
from ebbtide import _devices
from ebbtide._offload._choice import AlphaSearch, LayerCost, choose, device_part, in_pieces, memo_alpha
from ebbtide._transformer import Decoder, crossover, layer_time, swap_seconds

# 7B of MEMO (section 5), and one of its servers.
MEMO_7B = Decoder(layers=32, hidden=4096, mlp=16384, vocabulary=50257)
MEMO_HOST = 2e12


@pytest.fixture(autouse=True)
def device_files(monkeypatch):
    from dryrun_run import ROOT

    monkeypatch.setenv("EBBTIDE_DRYRUN_DEVICES", str(ROOT / "dryrun" / "devices"))


def test_memos_alpha_is_the_closed_form():
    # The link carries 5 in a layer's time, 2 go always, the rest is 6: half of it.
    assert memo_alpha(2, 6, layers=10, bytes_per_layer_time=5, host_bytes=1e9) == (0.5, "link")
    # The host holds 35 for 10 layers: 3.5 each, a quarter of the rest.
    assert memo_alpha(2, 6, layers=10, bytes_per_layer_time=99, host_bytes=35) == (0.25, "host")
    assert memo_alpha(2, 6, layers=10, bytes_per_layer_time=1, host_bytes=1e9) == (0, "link")
    assert memo_alpha(2, 6, layers=10, bytes_per_layer_time=99, host_bytes=1e9) == (1, "")


def test_memos_host_limit_is_its_own_example():
    # 7B, 1M tokens, 2 TB of host memory: reference/papers.md derives 0.467 in units of GiB
    size = 2**20 * 2 * 4096
    alpha, limit = memo_alpha(2 * size, 14 * size, 30, 1e18, 2048 * 2**30)
    assert alpha == pytest.approx(0.467, abs=0.01) and limit == "host"


def _brute_force(layers, host, device):
    """The least recomputation over all choices of pieces."""
    best = float("inf")
    ranges = [
        [(k, s) for k in range(c.pieces + 1) for s in range(c.pieces + 1 - k)] for c in layers
    ]
    always = sum(c.always_bytes for c in layers)
    room = device - max(0.0, always - host)
    for picked in itertools.product(*ranges):
        sizes = [c.rest_bytes / c.pieces for c in layers]
        if any(
            c.always_bytes + s * size > c.link_bytes + 1e-9 and s > 0
            for c, size, (_, s) in zip(layers, sizes, picked, strict=True)
        ):
            continue
        swapped = sum(s * size for size, (_, s) in zip(sizes, picked, strict=True))
        kept = sum(k * size for size, (k, _) in zip(sizes, picked, strict=True))
        if swapped > max(0.0, host - always) + 1e-9 or kept > max(0.0, room) + 1e-9:
            continue
        spent = sum(
            c.recompute_seconds * (1 - (k + s) / c.pieces)
            for c, (k, s) in zip(layers, picked, strict=True)
        )
        best = min(best, spent)
    return best


@pytest.mark.parametrize("seed", range(60))
def test_no_choice_of_pieces_recomputes_less_than_the_stated_gap_allows(seed):
    rng = random.Random(seed)
    alike = seed % 2 == 0
    first = [rng.randint(1, 4), rng.randint(1, 9) * 3.0, rng.randint(1, 9) * 1.0]
    layers = []
    for _ in range(rng.randint(1, 3)):
        always, rest, seconds = (
            first if alike else [rng.randint(1, 4), rng.randint(1, 9) * 3.0, rng.random()]
        )
        layers.append(LayerCost(always, rest, seconds, rng.randint(0, 20), pieces=3))
    host, device = rng.randint(0, 50), rng.randint(0, 30)
    choice = choose(layers, host, device)
    best = _brute_force(layers, host, device)
    program = f"choose({layers}, {host}, {device})"
    assert choice.recompute_seconds >= best - 1e-9, program
    assert choice.recompute_seconds <= best + choice.gap_seconds + 1e-9, program
    if alike:
        assert choice.gap_seconds == 0, program


@pytest.mark.parametrize("seed", range(20))
def test_the_choice_keeps_every_limit(seed):
    rng = random.Random(1000 + seed)
    layers = [
        LayerCost(rng.random(), rng.random() * 9, rng.random(), rng.random() * 9, 16)
        for _ in range(40)
    ]
    always = sum(layer.always_bytes for layer in layers)
    host, device = always + rng.random() * 100, rng.random() * 50
    choice = choose(layers, host, device)
    swapped = kept = 0.0
    for layer, chosen in zip(layers, choice.layers, strict=True):
        piece = layer.rest_bytes / layer.pieces
        assert chosen.swapped == 0 or (
            layer.always_bytes + chosen.swapped * piece <= layer.link_bytes + 1e-9
        )
        swapped += chosen.swapped * piece
        kept += chosen.kept * piece
    assert always + swapped <= host + 1e-9 and kept <= device + 1e-9


def test_the_limit_that_binds_is_named():
    assert choose([LayerCost(1, 4, 1, link_bytes=3, pieces=4)], 100, 0).limits == ("link", "device")
    assert choose([LayerCost(1, 4, 1, link_bytes=9, pieces=4)], 3, 0).limits == ("host", "device")
    assert choose([LayerCost(1, 4, 1, link_bytes=9, pieces=4)], 100, 0).limits == ()


@pytest.mark.parametrize("seconds_to_wait", [0, 5, 30, 80])
@pytest.mark.parametrize("hidden_part", [0.05, 0.3, 0.6, 1.0])
def test_the_search_ends_within_one_percent_of_the_best_share(seconds_to_wait, hidden_part):
    # GIVEN steps that get shorter by recomputing less, and longer by what the link cannot hide
    def step(part):
        return 100 - 10 * part + seconds_to_wait * max(0.0, part - hidden_part)

    search, tried = AlphaSearch(), 0
    while (part := search.following()) is not None:
        search.note(part, step(part))
        tried += 1
    assert tried <= 6
    best = min(step(part / 64) for part in range(65))
    assert step(search.best()) <= 1.01 * best


def test_of_shares_that_are_as_fast_the_smallest_is_chosen():
    search = AlphaSearch()
    for part, seconds in ((0, 1.1), (1, 1.0), (0.5, 1.004), (0.25, 1.006)):
        search.note(part, seconds)
    assert search.best() == 0.5
    assert AlphaSearch().best() == 1


def test_a_refused_share_and_larger_ones_are_never_taken():
    search = AlphaSearch()  # the larger the faster, but plans of more than 40 of 64 parts do not fit
    while (part := search.following()) is not None:
        search.refuse(part) if part > 40 / 64 else search.note(part, 2 - part)
    assert 32 / 64 <= search.best() <= 40 / 64 and search.is_bounded
    search.refuse(0)
    assert search.best() == 0 and search.following() is None


def test_a_share_that_waits_for_copies_too_long_is_not_taken_though_it_is_the_fastest():
    search = AlphaSearch()
    while (part := search.following()) is not None:
        search.note(part, 2 - part, waited=0.03 if part > 40 / 64 else 0.005)
    assert 36 / 64 <= search.best() <= 40 / 64
    assert search.is_late_beyond and not search.is_bounded
    assert search.scaled(0.5).best() == search.best() / 2


def test_below_a_share_that_waits_too_long_the_search_goes_on():
    # As Qwen3 on an H100 at 64K tokens: the most that the link hides is slower than half of it, what lies between is not.
    measured = {0: (3.7775, 0), 32: (3.5984, 0), 48: (3.5353, 0.0194), 52: (3.524, 0.03), 56: (3.5129, 0.0402), 64: (3.6271, 0.138)}
    search = AlphaSearch()
    while (part := search.following()) is not None:
        search.note(part, *measured[round(part * 64)])
    assert search.best() == 48 / 64


def test_where_every_share_waits_too_long_the_fastest_is_taken():
    search = AlphaSearch()
    while (part := search.following()) is not None:
        search.note(part, 2 - part, waited=0.5)
    assert search.best() == 1 and not search.is_late_beyond


def test_what_was_measured_is_a_part_of_a_larger_share():
    search = AlphaSearch()
    while (part := search.following()) is not None:
        search.note(part, 2 - part)
    assert search.best() == 1
    larger = search.scaled(0.7)
    assert larger.best() == int(0.7 * 64) / 64 and larger.following() == 1
    larger.note(1, 1.5)  # more does no good
    while (part := larger.following()) is not None:
        larger.note(part, 2 - part / 0.7 if part <= 0.7 else 1 + (part - 0.7) / 0.3 / 2)
    assert larger.best() == pytest.approx(0.7, abs=2 / 64)


def test_a_share_that_was_never_measured_is_halved_while_it_is_refused():
    search, taken = AlphaSearch(), []
    while search.best() > 0:
        taken.append(search.best())
        search.refuse(search.best())
    assert taken == [1, 1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 64]


def test_swapping_hides_from_where_memo_says():
    # MEMO, figure 1b: 7B, 8 x A800, tensor parallel 8: from 192K tokens
    tokens = crossover(MEMO_7B, _devices.load("a800-80g"), ranks=8)
    assert tokens / 1024 == pytest.approx(192, rel=0.10)


def test_the_crossover_is_where_copies_take_as_long_as_a_forward():
    device = _devices.load("h200")
    tokens = crossover(MEMO_7B, device)
    forward = layer_time(MEMO_7B, tokens, device).forward
    assert swap_seconds(MEMO_7B, tokens, device) == pytest.approx(forward, rel=1e-4)
    assert swap_seconds(MEMO_7B, tokens / 2, device) > layer_time(MEMO_7B, tokens / 2, device).forward


def test_attention_is_most_of_a_forward_where_memo_says():
    # figure 6: more than 90 % of a layer's forward computation above 576K (7B, 8 ranks)
    time = layer_time(MEMO_7B, 576 * 1024, _devices.load("a800-80g"), ranks=8)
    assert time.attention / (time.attention + time.matrix + time.other) > 0.9


def seen(rest, swapped=10):
    """Of one layer in observed steps."""
    shares = pytest.importorskip("ebbtide._offload._auto_shares")
    return shares.LayerSeen(ran=True, pieces=0, swapped=swapped, kept=0, rest=rest, longest=1, attention=0, whole=0)


def taken(link, host, *layers, room=0):
    """The shares of these layers, where those of which there is room keep all they save."""
    shares = pytest.importorskip("ebbtide._offload._auto_shares").LayerShares(layers)
    if room:
        shares.keep(1, room)
    shares.take_most(link, host)
    return shares


def test_a_choice_tells_how_far_it_may_be_from_the_best():
    # alike layers: exact; the last one stays on the device, and keeps as much as the others swap in three layers' time
    found = taken(220, 1e9, seen(640), seen(640), seen(640, swapped=0))
    assert found.most == (0.5, 0.5, 0.5) and (found.limit, found.gap) == ("link", 0)
    # the host holds one piece less than is wanted of layers that differ
    found = taken(1e9, 20 + 645, seen(640), seen(6400))
    assert found.limit == "host" and 0 < found.gap < 0.02
    stored = 640 * found.most[0] + 6400 * found.most[1]
    assert stored <= 645 and found.gap == pytest.approx((645 - stored) / (7040 - stored))


def test_copies_have_the_time_of_the_layers_that_keep_all_they_save_too():
    layers = [*[seen(640)] * 5, seen(640, swapped=0)]
    without, beside = taken(110, 1e9, *layers), taken(110, 1e9, *layers, room=2 * 650 + 640)
    assert sum(beside.kept.stays) == 3 and beside.leaving == (0, 2, 4)
    # THEN 132 bytes may go of each of five layers, 10 of them always; and 220 of each of three
    assert without.most[0] == int(64 * 122 / 640) / 64 and beside.most[0] == int(64 * 210 / 640) / 64


def test_shares_stay_within_what_the_device_has_left():
    assert device_part(room=30, moving=20, staying=20) == 0.75
    assert device_part(room=50, moving=20, staying=20) == 1
    assert device_part(room=-1, moving=20, staying=20) == 0
    # what stays is bounded: the rest is for what is on its way
    assert device_part(room=16, moving=20, staying=20, staying_at_most=4) == 0.6
    assert device_part(room=16, moving=20, staying=20, staying_at_most=10) == 0.4
    assert device_part(room=0, moving=0, staying=0) == 1


def test_shares_in_whole_pieces_are_never_more():
    # 4.69, 9.375, 14.06 and 18.75 of 10 pieces each
    assert in_pieces([0.46875] * 4, [10] * 4) == (0.4, 0.5, 0.5, 0.4)
    assert in_pieces([0.46875] * 4, [10] * 4, is_carried=False) == (0.4,) * 4
    assert in_pieces([0.3, 0.3], [10, 0]) == (0.3, 0.3)  # a rounding error costs no piece; without pieces nothing changes
    assert in_pieces([1.0, 1.0], [3, 7]) == (1.0, 1.0)


@pytest.mark.parametrize("seed", range(20))
def test_up_to_each_layer_whole_pieces_are_at_most_the_shares_and_miss_less_than_one(seed):
    draw = random.Random(seed)
    shares = [draw.random() for _ in range(9)]
    pieces = [draw.randint(1, 12)] * len(shares)
    found = in_pieces(shares, pieces)
    for end in range(1, len(shares) + 1):
        missed = sum(shares[:end]) - sum(found[:end])
        assert -1e-9 <= missed < 1 / pieces[0] + 1e-9
