"""SwapStore on CPU tensors: same bits back, nothing leaks, budgets hold, changes are noticed."""

from __future__ import annotations

import gc
import json
import os
import pathlib
import random
import sys
import weakref

import pytest
from conftest import PROGRAMS

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.usefixtures("native")

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "python_shim"))

from ebbtide import EbbtideError  # noqa: E402
from ebbtide._offload._swap_store import SwapStore  # noqa: E402

MIB = 1 << 20


@pytest.fixture
def store():
    made = SwapStore("cpu", 64 * MIB)
    yield made
    made.close()


def rows(count: int, width: int = 1024, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(count, width).to(dtype)


def assert_same(found: torch.Tensor, wanted: torch.Tensor) -> None:
    assert (found.dtype, found.size(), found.stride()) == (wanted.dtype, wanted.size(), wanted.stride())
    assert torch.equal(found, wanted)


VIEWS = {
    "whole": lambda base: base,
    "second half": lambda base: base[32:],
    "transposed": lambda base: base.t(),
    "every other column": lambda base: base[:, ::2],
    "expanded": lambda base: base[:1].expand(5, -1),
    "bfloat16": lambda base: base.to(torch.bfloat16),
    "booleans": lambda base: base > 0,
    "conjugated": lambda base: torch.complex(base, base).conj(),
    "one number": lambda base: base[3, 4],
    "nothing": lambda base: base[:0],
}


@pytest.mark.parametrize("name", VIEWS)
def test_a_saved_tensor_comes_back_with_its_bits_dtype_shape_and_strides(store, name):
    tensor = VIEWS[name](rows(64))
    wanted, stride = tensor.clone(), tensor.stride()
    saved = store.save(tensor)
    store.let_go()
    del tensor
    found = saved.get()
    assert (found.dtype, found.stride()) == (wanted.dtype, stride)
    assert torch.equal(found, wanted)


def test_a_tensor_leaves_when_the_second_layer_after_it_begins(store):
    tensor = rows(256)
    address = weakref.ref(tensor.untyped_storage())
    saved, wanted = store.save(tensor), tensor.clone()
    del tensor
    store.layer_ended()
    assert address() is not None
    store.layer_ended()
    assert address() is None
    assert_same(saved.get(), wanted)


def test_without_layers_to_go_by_what_is_in_flight_is_bounded(monkeypatch):
    monkeypatch.setattr("ebbtide._offload._swap_store._MOST_IN_FLIGHT_BYTES", 3 * MIB)
    store, saved, storages, in_flight = SwapStore("cpu", 64 * MIB), [], [], []
    for _ in range(8):
        tensor = rows(256)
        storages.append(weakref.ref(tensor.untyped_storage()))
        saved.append(store.save(tensor))
        del tensor
        in_flight.append(sum(storage() is not None for storage in storages))
    assert max(in_flight) == 3


def test_a_tensor_that_is_still_on_the_device_is_not_copied_back(store):
    tensor = rows(64)
    saved = store.save(tensor)
    assert saved.get().data_ptr() == tensor.data_ptr()
    assert store.stats().copies_in == 0


def test_one_storage_saved_twice_is_stored_once(store):
    tensor = rows(256)
    first, second, half = store.save(tensor), store.save(tensor.view(-1)), store.save(tensor[128:])
    assert store.stats().copies_out == 2
    store.let_go()
    wanted = tensor.clone()
    first.release()
    assert_same(second.get(), wanted.view(-1))
    assert_same(half.get(), wanted[128:])


def test_the_same_bytes_as_another_type_come_back_as_that_type(store):
    tensor = rows(64)
    saved = store.save_all([tensor, tensor.view(torch.int32)])
    store.let_go()
    assert_same(saved[1].get(), tensor.view(torch.int32))
    assert_same(saved[0].get(), tensor)


def test_tensors_saved_together_leave_and_return_as_one(store):
    tensors = [rows(5), rows(1).to(torch.bool), rows(64).t(), rows(0), rows(7, dtype=torch.float64)]
    wanted = [tensor.clone(memory_format=torch.preserve_format) for tensor in tensors]
    saved = store.save_all([*tensors, tensors[0]])
    store.layer_ended()
    store.layer_ended()
    del tensors
    assert store.stats().copies_out == 4
    saved[2].prefetch()
    for each, tensor in zip(saved, [*wanted, wanted[0]], strict=True):
        assert_same(each.get(), tensor)
    assert store.stats().copies_in == 1
    # A change of one that is back is no change of another.
    saved[0].get().add_(1)
    assert_same(saved[4].get(), wanted[4])
    landed = weakref.ref(saved[2].get().untyped_storage())
    for each in saved:
        assert store.stats().live_bytes > 0
        each.release()
    assert store.stats().live_bytes == 0
    assert landed() is None


def test_tensors_that_do_not_fit_together_leave_one_by_one():
    store = SwapStore("cpu", 3 * MIB)
    tensors = [rows(256) for _ in range(5)]
    saved = store.save_all(tensors)
    store.let_go()
    assert [each.swapped_bytes for each in saved] == [MIB, MIB, MIB, 0, 0]
    assert store.held_bytes == 2 * MIB
    for each, tensor in zip(saved, tensors, strict=True):
        assert_same(each.get(), tensor)


def test_a_change_in_place_of_one_of_several_raises_for_that_one(store):
    tensors = [rows(8) for _ in range(3)]
    saved = store.save_all(tensors)
    tensors[1].add_(1)
    store.let_go()
    assert_same(saved[0].get(), tensors[0])
    with pytest.raises(RuntimeError, match="changed in place"):
        saved[1].get()


def test_trl_6241_an_address_used_again_is_another_tensor(store):
    # GIVEN tensors that lie at one address, one after the other
    memory = bytearray(MIB)
    saved = []
    for number in range(8):
        tensor = torch.frombuffer(memory, dtype=torch.float32).fill_(number)
        saved.append(store.save(tensor.detach()))
        store.let_go()
        del tensor
    # THEN each comes back as itself
    for number, each in enumerate(saved):
        assert_same(each.get(), torch.full((MIB // 4,), float(number)))


@pytest.mark.parametrize("is_away", [False, True])
def test_a_change_in_place_after_the_save_raises(store, is_away):
    tensor = rows(64)
    saved = store.save(tensor)
    tensor.add_(1)
    if is_away:
        store.let_go()
    with pytest.raises(RuntimeError, match="changed in place"):
        saved.get()


def test_the_same_storage_at_another_version_is_another_tensor(store):
    tensor = rows(64)
    first = store.save(tensor)
    tensor.add_(1)
    second = store.save(tensor)
    store.let_go()
    assert_same(second.get(), tensor)
    with pytest.raises(RuntimeError, match="changed in place"):
        first.get()


@pytest.mark.parametrize("budget", [0, 4096, 1 * MIB, 1 * MIB + 512 * 1024 + 4])
def test_what_does_not_fit_on_the_host_is_split_and_the_rest_stays(budget):
    store = SwapStore("cpu", budget)
    tensors = [rows(256) for _ in range(3)]
    saved = [store.save(tensor) for tensor in tensors]
    store.let_go()
    stats = store.stats()
    assert stats.peak_live_bytes <= budget
    assert stats.pinned_bytes <= budget
    assert sum(each.swapped_bytes for each in saved) + store.held_bytes == 3 * MIB
    assert sum(each.swapped_bytes for each in saved) >= budget - 3 * 512 - 4096
    for each, tensor in zip(saved, tensors, strict=True):
        each.prefetch()
        assert_same(each.get(), tensor)
        each.release()
    assert store.stats().live_bytes == 0


def test_an_abandoned_graph_leaves_nothing_on_host_or_device(store):
    freed = []
    for state in ("leaving", "away", "landing", "landed"):
        tensor = rows(256)
        saved = store.save(tensor)
        freed.append(weakref.ref(tensor.untyped_storage()))
        del tensor
        if state != "leaving":
            store.let_go()
        if state == "landing":
            saved.prefetch()
        if state == "landed":
            freed.append(weakref.ref(saved.get().untyped_storage()))
        del saved
        gc.collect()
        assert store.stats().live_bytes == 0, state
    assert [reference() for reference in freed] == [None] * len(freed)


def test_release_twice_and_get_after_it(store):
    saved = store.save(rows(64))
    saved.release()
    saved.release()
    with pytest.raises(RuntimeError, match="after its release"):
        saved.get()


def test_two_forwards_before_their_backwards_in_any_order(store):
    chance = random.Random(7)
    waiting: list[tuple[object, torch.Tensor]] = []
    for _ in range(200):
        if waiting and chance.random() < 0.5:
            saved, wanted = waiting.pop(chance.randrange(len(waiting)))
            if chance.random() < 0.5:
                saved.prefetch()
            assert_same(saved.get(), wanted)
            saved.release()
        else:
            tensor = rows(chance.randrange(1, 400))
            waiting.append((store.save(tensor), tensor.clone()))
            if chance.random() < 0.5:
                store.layer_ended()
        assert store.stats().live_bytes <= 64 * MIB
    for saved, wanted in waiting:
        assert_same(saved.get(), wanted)


def test_rounds_that_repeat_are_served_from_a_plan(store):
    for _ in range(8):
        saved = [store.save(rows(16 * (number + 1))) for number in range(12)]
        for each in sorted(saved, key=lambda each: each.size_bytes % 7):
            each.release()
        store.let_go()
    stats = store.stats()
    assert stats.rounds == 8
    assert stats.planned_tickets > 0
    assert stats.plan_height_bytes == stats.plan_lower_bound_bytes


def test_times_add_up(store):
    saved = store.save(rows(4096))
    store.let_go()
    saved.get()
    saved.release()
    stats = store.stats()
    assert stats.copying_out_ns > 0
    assert 0 < stats.timed_out_bytes <= stats.swapped_out_bytes
    assert stats.copying_in_ns > 0
    assert 0 <= stats.exposed_ns <= stats.copying_out_ns + stats.copying_in_ns
    assert stats.hidden_ns + stats.exposed_ns == stats.copying_out_ns + stats.copying_in_ns
    assert stats.host_waits == 0


def test_saved_tensors_outlive_the_callers_reference_to_the_store():
    store = SwapStore("cpu", 8 * MIB)
    tensor = rows(64)
    saved = store.save(tensor)
    store.let_go()
    del store
    gc.collect()
    assert_same(saved.get(), tensor)


def test_after_close_what_was_saved_cannot_be_got_and_can_be_released():
    store = SwapStore("cpu", 8 * MIB)
    saved = store.save(rows(64))
    store.close()
    with pytest.raises(RuntimeError, match="is not open"):
        saved.get()
    saved.release()
    store.close()


def test_a_forked_child_ends_without_the_parents_threads(store):
    saved = store.save(rows(64))
    child = os.fork()
    if child == 0:
        saved.release()
        store.close()
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


@pytest.mark.parametrize("budget", [-1, 1 << 50])
def test_an_impossible_budget_is_named(budget):
    with pytest.raises(EbbtideError, match=f"host budget {budget}: allowed are 0 to"):
        SwapStore("cpu", budget)


def test_without_a_budget_it_takes_of_what_is_available_not_only_of_what_is_free(monkeypatch, tmp_path):
    from ebbtide._offload import _store_choice

    told = tmp_path / "meminfo"
    monkeypatch.setattr(_store_choice, "_MEMORY", told)
    monkeypatch.setattr(_store_choice, "host_memory", lambda: 64 << 20)
    told.write_text("MemTotal:   99999 kB\nMemFree:      100 kB\nMemAvailable:   32768 kB\n")
    assert _store_choice._available() == 24 << 20
    told.write_text("MemAvailable: 999999 kB\n")  # more than this process may use
    assert _store_choice._available() == 48 << 20
    told.unlink()
    assert 0 < _store_choice._available() <= 48 << 20


def test_built_for_another_torch_it_keeps_saved_tensors_on_the_device(run_python, tmp_path):
    from fakes import build

    code = (
        "import torch\n"
        "from ebbtide._offload._store_choice import make_store\n"
        "print(type(make_store(torch.device('cpu'), 1 << 20)).__name__)\n"
    )
    done = run_python(["-c", code], EBBTIDE_NATIVE_DIR=str(build(tmp_path, "2.5.1")))
    assert done.stdout.strip() == "KeepStore"
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("ebbtide"))
    assert "built for torch 2.5.1" in line and "saved tensors stay on the device" in line


def test_a_tensor_of_another_device_is_refused(store):
    with pytest.raises(RuntimeError, match="a tensor on meta was given to a store of cpu"):
        store.save(torch.empty(8, device="meta"))


def soak(run_python, native, *options: str) -> dict:
    done = run_python([str(PROGRAMS / "swap_soak.py"), *options], EBBTIDE_NATIVE_DIR=str(native))
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.strip().splitlines()[-1])
    assert answer["checked"] > 100
    assert answer["wrong"] == 0
    assert answer["host_waits"] == 0
    assert answer["live_bytes"] == 0
    assert answer["pinned_bytes"] <= answer["host_budget_bytes"]
    return answer


def test_random_saves_and_gets_on_cpu_tensors_give_the_same_bits(run_python, native):
    soak(run_python, native)


@pytest.mark.gpu
@pytest.mark.alone
@pytest.mark.parametrize("options", [(), ("--side-stream",)])
def test_random_saves_and_gets_on_a_gpu_give_the_same_bits(run_python, native, options):
    answer = soak(run_python, native, "--device", "cuda", *options)
    assert answer["copying_out_ns"] > 0
    exposed = answer["exposed_out_ns"] + answer["exposed_in_ns"]
    assert exposed < answer["copying_out_ns"] + answer["copying_in_ns"]
