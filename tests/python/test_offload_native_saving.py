"""Recorders of C++ in a Python program: the innermost hooks count, and nothing is told apart wrongly."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch

pytest.importorskip("ebbtide")

from ebbtide._offload._layer_saving import landing_for, recorder_for, storage_of  # noqa: E402
from ebbtide._offload._layer_tally import Tally, TallyingStore  # noqa: E402
from ebbtide._offload._native_saving import Externals, NativeKeepStore  # noqa: E402
from ebbtide._offload._store import KeepStore  # noqa: E402
from ebbtide._offload._swap_store import SwapStore  # noqa: E402

MIB = 1 << 20
SIDE = 64  # a matrix of 16 KiB, of float32
BYTES = SIDE * SIDE * 4
LARGE = 1 << 40


@pytest.fixture(params=["swap", "keep on the device", "keep, in Python"])
def store(request):
    if request.param == "swap":
        made = SwapStore("cpu", 64 * MIB)
        yield made
        made.close()
    else:
        yield NativeKeepStore() if request.param == "keep on the device" else KeepStore()


def leaf() -> torch.Tensor:
    return torch.randn(SIDE, SIDE, requires_grad=True)


def away(store) -> None:
    """What was handed over has left the device, where it may."""
    store.layer_ended()
    store.layer_ended()


def test_a_graph_gets_back_what_was_saved_and_forgets_it(store):
    x = leaf()
    expected = torch.autograd.grad((x.sin() * x.cos()).sum(), x)[0]
    recorder = recorder_for(store, Externals())
    with recorder.hooks():
        y = (x.sin() * x.cos()).sum()
    handed = recorder.hand_over(store, [], LARGE)
    assert sum(one.size_bytes for one in handed.saved) == handed.occupied_bytes == 3 * BYTES  # x, sin, cos
    away(store)
    assert torch.equal(torch.autograd.grad(y, x)[0], expected)
    del handed, y
    gc.collect()
    assert store.held_bytes == 0
    assert not isinstance(store, SwapStore) or store.stats().live_bytes == 0


def test_nothing_moves_beyond_the_limit(store):
    x = leaf()
    recorder = recorder_for(store, Externals())
    with recorder.hooks():
        y = x.sin().exp().sum()
    assert recorder.hand_over(store, [], 2 * BYTES - 1) is None
    assert store.held_bytes == 0
    assert torch.equal(torch.autograd.grad(y, x)[0], x.cos() * x.sin().exp())


def test_infinity_is_no_limit_and_less_than_nothing_allows_nothing(store):
    for limit, is_handed in ((float("inf"), True), (1e30, True), (BYTES + 0.5, True), (BYTES - 0.5, False), (-1.5, False)):
        x = leaf()
        recorder = recorder_for(store, Externals())
        with recorder.hooks():
            y = x.sin()
        assert (recorder.hand_over(store, [], limit) is not None) == is_handed
        del y


def test_a_store_that_counts_is_told_of_what_recorders_of_either_kind_hand_over(store):
    tally = Tally("layer")
    counting = TallyingStore(store, tally)
    x = leaf()
    recorder = recorder_for(counting, Externals())
    with recorder.hooks():
        y = x.sin()
    handed = recorder.hand_over(counting, [], LARGE)
    assert tally.kept_bytes + tally.swapped_bytes == sum(one.size_bytes for one in handed.saved) == BYTES
    assert (tally.swapped_bytes == BYTES) == isinstance(store, SwapStore)
    del y


def test_an_error_of_what_counts_is_the_programs(store):
    class Counting:
        is_native, address = True, getattr(store, "address", 0)

        def count(self, handed):
            raise ZeroDivisionError

    if not store.is_native:
        pytest.skip("recorders of Python count themselves")
    x = leaf()
    recorder = recorder_for(store, Externals())
    with recorder.hooks():
        y = x.sin()
    with pytest.raises(ZeroDivisionError):
        recorder.hand_over(Counting(), [], LARGE)
    assert torch.equal(torch.autograd.grad(y.sum(), x)[0], x.cos())


def test_what_recorders_of_cpp_cannot_hand_over_to_is_refused(store):
    if not store.is_native:
        pytest.skip("of C++")
    recorder = recorder_for(store, Externals())
    with pytest.raises(AttributeError, match="address"):
        recorder.hand_over(KeepStore(), [], LARGE)
    with pytest.raises(TypeError):
        recorder.hand_over(store, [], "many")
    assert not recorder.hand_over(store, [], LARGE).saved
    with pytest.raises(RuntimeError, match="after its end"):
        recorder.hand_over(store, [], LARGE)


def test_hooks_entered_inside_are_the_innermost(store):
    x, seen = leaf(), []
    recorder = recorder_for(store, Externals())
    with recorder.hooks():
        y = x.sin()
        with torch.autograd.graph.saved_tensors_hooks(lambda t: seen.append(t.shape) or t, lambda t: t):
            y = y.exp()
        y = y.cos().sum()
    assert len(seen) == 1
    handed = recorder.hand_over(store, [], LARGE)
    assert handed.occupied_bytes == 2 * BYTES  # x and the cosine's argument
    assert torch.allclose(torch.autograd.grad(y, x)[0], -x.sin().exp().sin() * x.sin().exp() * x.cos())


def test_hooks_entered_outside_see_nothing_and_go_on_afterwards(store):
    x, seen = leaf(), []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: seen.append(1) or t, lambda t: t):
        recorder = recorder_for(store, Externals())
        with recorder.hooks():
            y = x.sin()
        assert not seen
        z = y.exp().sum()
    assert len(seen) == 1
    assert recorder.hand_over(store, [], LARGE).occupied_bytes == BYTES
    assert torch.allclose(torch.autograd.grad(z, x)[0], x.sin().exp() * x.cos())


def test_an_exception_ends_the_recording(store):
    x = leaf()
    recorder = recorder_for(store, Externals())
    with pytest.raises(ZeroDivisionError), recorder.hooks():
        x.sin()
        1 / 0  # noqa: B018
    y = x.exp().sum()
    assert not recorder.hand_over(store, [], LARGE).saved
    assert torch.equal(torch.autograd.grad(y, x)[0], x.exp())


def test_what_lives_elsewhere_is_not_taken(store):
    x, weight = leaf(), leaf()
    recorder = recorder_for(store, Externals([storage_of(weight)]))
    with recorder.hooks():
        y = (x @ weight.t()).sum()
    assert recorder.measure([storage_of(x)]) == 0
    assert recorder.hand_over(store, [], LARGE).occupied_bytes == BYTES  # x alone
    assert torch.allclose(torch.autograd.grad(y, weight)[0], torch.ones(SIDE, SIDE).t() @ x)


def test_views_of_a_landing_come_from_it(store):
    whole = torch.randn(4 * SIDE, SIDE)
    landing = landing_for(store, whole)
    x = whole[SIDE : 2 * SIDE].requires_grad_()
    recorder = recorder_for(store, Externals())
    with recorder.hooks():
        y = x.sin().sum()
    assert recorder.hand_over(store, [landing], LARGE).occupied_bytes == 0
    landing.drop()
    landing.put(2 * whole)  # to tell which bytes are used
    assert torch.equal(torch.autograd.grad(y, x)[0], (2 * whole[SIDE : 2 * SIDE]).cos())


def test_a_change_in_place_raises_before_it_is_handed_over_and_after(store):
    for is_late in (False, True):
        x = leaf()
        recorder = recorder_for(store, Externals())
        with recorder.hooks():
            between = x.sin()
            y = between.exp().sum() + between.cos().sum()
        handed = recorder.hand_over(store, [], LARGE) if is_late else None
        with torch.no_grad():
            between.mul_(2)
        with pytest.raises(RuntimeError, match="changed in place after ebbtide"):
            if is_late:
                torch.autograd.grad(y, x)
            else:
                recorder.hand_over(store, [], LARGE)
        del handed


def test_wrapper_subclasses_stay_what_they_are(store):
    from torch.testing._internal.two_tensor import TwoTensor

    x = TwoTensor(leaf().detach(), leaf().detach()).requires_grad_()
    recorder = recorder_for(store, Externals())
    with recorder.hooks():
        y = x.sin()
    recorder.hand_over(store, [], LARGE)
    (gradient,) = torch.autograd.grad(y, x, torch.ones_like(y))
    assert isinstance(gradient, TwoTensor)
    assert torch.equal(gradient.a, x.a.cos()) and torch.equal(gradient.b, x.b.cos())


def test_an_abandoned_graph_is_forgotten(store):
    x = leaf()
    recorder = recorder_for(store, Externals())
    with recorder.hooks():
        y = x.sin().exp()
    alive = weakref.ref(y)
    handed = recorder.hand_over(store, [], LARGE)
    away(store)
    del handed, y, recorder
    gc.collect()
    assert alive() is None and store.held_bytes == 0
    assert not isinstance(store, SwapStore) or store.stats().live_bytes == 0


@pytest.mark.filterwarnings("ignore:Anomaly Detection")
def test_backward_of_functions_in_python_and_anomaly_detection_work_behind_our_engine(store):
    class Square(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        def backward(ctx, gradient):
            (x,) = ctx.saved_tensors
            return 2 * x * gradient

    x = leaf()
    with torch.autograd.detect_anomaly(check_nan=True):
        recorder = recorder_for(store, Externals())
        with recorder.hooks():
            y = Square.apply(x.exp()).sum()
        recorder.hand_over(store, [], LARGE)
        assert torch.allclose(torch.autograd.grad(y, x)[0], 2 * x.exp() * x.exp())


def test_threads_in_a_store_when_the_interpreter_ends_do_not_abort_the_process(run_python, native):
    """They ask for Python's lock, which they never get again. Nothing of torch's runs in them: it would abort."""
    program = """
        import threading
        import torch
        from ebbtide._offload._layer_saving import recorder_for
        from ebbtide._offload._native_saving import Externals
        from ebbtide._offload._swap_store import SwapStore

        store = SwapStore("cpu", 1 << 20)
        begun = threading.Barrier(9)
        graphs = []

        def save():
            recorder = recorder_for(store, Externals())
            with recorder.hooks():
                graphs.append(torch.zeros(1 << 12, requires_grad=True).sin())
            return recorder.hand_over(store, [], 1 << 40).saved[0]

        def ask(saved):
            begun.wait()
            while True:
                saved.prefetch()  # it is still on its way out: asked anew each time, without the lock

        for _ in range(8):
            threading.Thread(target=ask, args=(save(),), daemon=True).start()
        begun.wait()
    """
    done = run_python(program, EBBTIDE_NATIVE_DIR=str(native))
    assert done.returncode == 0, done.stderr
