"""How alpha is chosen from steps, on CPU tensors and a clock that the tests move on."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import ebbtide  # noqa: E402
import offload_models as models  # noqa: E402
from ebbtide._offload import _auto_alpha, _report  # noqa: E402
from ebbtide._offload._offload_stats import AllOffload  # noqa: E402
from ebbtide._offload._offloaded import offloaded_of  # noqa: E402
from ebbtide._stats import StepPlan  # noqa: E402
from test_offload_api import Block, batch, make, train  # noqa: E402

STEPS_TO_SETTLE = 28  # two, then four for each of the six shares that are tried, and one that applies it


@pytest.fixture
def clock(monkeypatch):
    """What the choice of alpha sees as time: it stands still but where a test moves it on."""

    class Clock:
        seconds = 0.0

    class Moment(_auto_alpha.Moment):
        def __init__(self, device):
            super().__init__(device)
            self._seconds = Clock.seconds

    monkeypatch.setattr(_auto_alpha, "Moment", Moment)
    return Clock


def let_forward_take(model, clock, seconds):
    """`seconds()` of `clock` pass in each of the model's forwards, between its first layer and the last."""

    def pass_by(*_):
        clock.seconds += seconds()

    model.model.layers[-1].register_forward_pre_hook(pass_by)


@pytest.mark.parametrize(("forward", "alpha", "limit"), [(3600, 1, ""), (0, 0, "link")])
def test_memos_alpha_is_chosen_after_two_steps_and_two_layers_stay(native, clock, forward, alpha, limit):
    model = make(num_hidden_layers=4)
    ebbtide.offload(model, alpha="memo", mini_sequence=8, host="64MiB")
    let_forward_take(model, clock, lambda: forward)
    whole = [train(model) for _ in range(4)]
    for found in whole[1:]:
        models.assert_same_bits(found, whole[0])
    chosen = offloaded_of(model)
    assert (chosen.options.alpha, chosen.limit) == (alpha, limit)
    assert chosen.options.keep_last == 2


def test_a_host_that_is_steps_ahead_of_the_device_chooses_all_the_same(native, clock, monkeypatch):
    # GIVEN a host that knows of a moment only two forwards later, always
    model, forwards = make(), []
    model.register_forward_pre_hook(lambda *_: forwards.append(None))
    made, known = _auto_alpha.Moment.__init__, []

    def init(self, device):
        made(self, device)
        self.forward = len(forwards)

    monkeypatch.setattr(_auto_alpha.Moment, "__init__", init)
    monkeypatch.setattr(_auto_alpha.Moment, "is_known", property(lambda self: len(forwards) >= self.forward + 2), raising=False)
    ebbtide.offload(model, keep_last=0, mini_sequence=8, host="64MiB")
    chosen = offloaded_of(model)
    let_forward_take(model, clock, lambda: 3600 * (2 - chosen.options.alpha))
    for _ in range(2 * STEPS_TO_SETTLE):
        train(model)
        known.append(chosen.options.alpha)
    # THEN it tries shares and settles on the best
    assert known[0] == 0 and 0.5 in known and known[-1] == 1 and not chosen._auto_alpha._hooks


class WithTower(torch.nn.Module):
    """Layers that every step runs, and a tower of two more, in front of them or behind, that none of its steps runs."""

    def __init__(self, is_in_front):
        super().__init__()
        if is_in_front:
            self.tower = torch.nn.ModuleList(Block(16) for _ in range(2))
        self.layers = torch.nn.Sequential(*(Block(16) for _ in range(4)))
        if not is_in_front:
            self.tower = torch.nn.ModuleList(Block(16) for _ in range(2))

    def forward(self, x):
        return self.layers(x)


@pytest.mark.parametrize("is_in_front", [True, False])
@pytest.mark.parametrize(("forward", "alpha"), [(3600, 1), (0, 0)])
def test_layers_that_a_step_leaves_out_do_not_keep_alpha_from_being_chosen(
    native, clock, forward, alpha, is_in_front
):
    model = WithTower(is_in_front)
    ebbtide.offload(model, alpha="memo", mini_sequence=8, host="64MiB")

    def pass_by(*_):
        clock.seconds += forward

    model.layers[-1].register_forward_pre_hook(pass_by)
    for _ in range(4):
        model(torch.ones(2, 29, 16)).square().sum().backward()
    chosen = offloaded_of(model)
    assert (chosen.options.alpha, chosen._auto_alpha._hooks) == (alpha, [])


@pytest.mark.parametrize(("late_beyond", "alpha"), [(2, 1), (0.3, 0.25), (-1, 0)])
def test_where_lengths_vary_a_share_is_halved_until_steps_wait_for_little(native, clock, monkeypatch, late_beyond, alpha):
    model, waited = make(), [0]
    ebbtide.offload(model, keep_last=0, mini_sequence=8, host="64MiB")
    chosen = offloaded_of(model)

    def seconds():
        waited[0] += 36 * 10**9 * (chosen.options.alpha > late_beyond)  # a hundredth of the step
        return 3600

    def note_waits(self):
        for begun in self._begun:
            begun.waited_ns = waited[0] if begun.waited_ns is None else begun.waited_ns

    monkeypatch.setattr(_auto_alpha.AutoAlpha, "_note_waits", note_waits)
    let_forward_take(model, clock, seconds)
    lengths = iter(range(29, 140))
    while chosen._auto_alpha._hooks:
        train(model, **batch(next(lengths)))
    assert chosen.options.alpha == alpha and chosen.limit == ("" if alpha == 1 else "link")


@pytest.fixture
def planner(monkeypatch):
    """Steps of which the address planner says what a test says: `height(alpha)`, on a device that holds 100."""

    class Planner:
        model = None
        height = staticmethod(lambda alpha: 0)

    def step_plan(device):
        return StepPlan(Planner.height(offloaded_of(Planner.model).options.alpha), 100)

    monkeypatch.setattr(_auto_alpha, "is_active", lambda: True)
    monkeypatch.setattr(_auto_alpha, "step_plan", step_plan)
    return Planner


def settle_under(planner, clock, height, steps=STEPS_TO_SETTLE + 12):
    """A model whose steps are the shorter the more is swapped, after `auto` has settled."""
    model = planner.model = make()
    planner.height = staticmethod(height)
    ebbtide.offload(model, keep_last=0, mini_sequence=8, host="64MiB")
    chosen = offloaded_of(model)
    let_forward_take(model, clock, lambda: 3600 * (2 - chosen.options.alpha))
    while chosen._auto_alpha._hooks and steps > 0:
        train(model)
        steps -= 1
    return ebbtide.stats().offload.models[-1]


def test_a_share_whose_addresses_have_no_plan_that_fits_is_not_taken(native, clock, planner):
    told = settle_under(planner, clock, lambda alpha: 100 if alpha <= 0.5 else 101)
    assert 0.4 < told.alpha <= 0.5 and told.limit == "device"
    assert told.plan == StepPlan(100, 100) and "planned height 100 B of budget 100 B" in _report.text(AllOffload((told,)))


def test_a_share_that_is_planned_after_it_was_chosen_is_given_up_for_the_next_best(native, clock, planner):
    asked = []

    def height(alpha):  # nothing is planned while shares are compared
        asked.append(alpha)
        return 0 if len(set(asked[-4:])) > 1 or len(asked) < 12 else 101 if alpha > 0.5 else 99

    told = settle_under(planner, clock, height)
    assert told.alpha <= 0.5 and told.limit == "device" and told.plan == StepPlan(99, 100)


def test_a_choice_whose_steps_never_get_a_plan_says_so(native, clock, planner):
    told = settle_under(planner, clock, lambda alpha: 0)
    assert told.alpha == 1 and told.plan == StepPlan(0, 100)
    assert "have no plan yet" in _report.text(AllOffload((told,)))


def test_where_not_even_no_swapping_fits_the_report_says_so(native, clock, planner):
    told = settle_under(planner, clock, lambda alpha: 101)
    assert told.alpha == 0 and not told.plan.fits
    assert "planned height 101 B of budget 100 B: does not fit" in _report.text(AllOffload((told,)))


@pytest.mark.parametrize("fastest", [0, 0.25, 0.75, 1])
def test_the_automatic_alpha_settles_at_the_shortest_step_and_changes_no_bit(native, clock, fastest):
    model = make()
    ebbtide.offload(model, keep_last=0, mini_sequence=8, host="64MiB")
    chosen = offloaded_of(model)
    let_forward_take(model, clock, lambda: 3600 * (1 + abs(chosen.options.alpha - fastest)))
    whole = [train(model) for _ in range(STEPS_TO_SETTLE)]
    for found in whole[1:]:
        models.assert_same_bits(found, whole[0])
    alpha = chosen.options.alpha
    assert abs(alpha - fastest) <= 1 / 16
    assert chosen.limit == ("" if alpha == 1 else "time")
    train(model)
    assert chosen.options.alpha == alpha  # nothing is tried any more
