"""SwapStore on the simulated GPU: the CUDA runtime's streams, events, copies and registered memory."""

from __future__ import annotations

import pathlib
import sys

import pytest
from dryrun_run import Simulated, simulate

pytestmark = pytest.mark.usefixtures("native")

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "python_shim"))

from ebbtide import _native  # noqa: E402

BEGIN = f"""
sys.path.insert(0, {str(ROOT / "python_shim")!r})
from ebbtide._offload._swap_store import SwapStore
GIB = 1 << 30
"""


def run(
    code: str,
    tmp_path: pathlib.Path,
    count: int = 1,
    capacity: str | None = None,
    **variables: str,
) -> Simulated:
    variables["EBBTIDE_NATIVE_DIR"] = str(_native.folder())
    return simulate(BEGIN + code, tmp_path, count=count, capacity=capacity, **variables)


def test_what_was_computed_goes_to_the_host_and_comes_back_as_it_was(tmp_path):
    done = run(
        """
store = SwapStore("cuda", GIB)
tensors = [torch.arange(1 << 18, device="cuda") * (number + 1) for number in range(8)]
wanted = [tensor.sum().item() for tensor in tensors]
saved = [store.save(tensor) for tensor in tensors]
del tensors
for _ in saved:
    store.layer_ended()
held = torch.cuda.memory_allocated()
for each in saved:
    each.prefetch()
found = [each.get().sum().item() for each in saved]
for each in saved:
    each.release()
del each
print(json.dumps([found == wanted, held, torch.cuda.memory_allocated(), store.stats().live_bytes,
                  store.stats().host_waits, store.stats().copies_in]))
""",
        tmp_path,
    )
    assert done.answer() == [True, 0, 0, 0, 0, 8]


def test_offloading_what_was_not_computed_is_no_read_and_costs_no_host_memory(tmp_path):
    done = run(
        """
import resource
store = SwapStore("cuda:0", 1024 * GIB)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
saved = []
for _ in range(1000):
    saved.append(store.save(torch.empty(10 << 20, dtype=torch.bfloat16, device="cuda")))
    store.layer_ended()
store.let_go()
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
back = [each.get() for each in saved[:4]]
store.let_go()
answer = {"reads": reads(), "host MiB": (after - before) >> 10, "live": store.stats().live_bytes}
float(back[0][0])
print(json.dumps(answer | {"reads of what came back": reads()}))
""",
        tmp_path,
    )
    answer = done.answer()
    assert answer.pop("host MiB") < 64
    assert answer == {"reads": 0, "live": 1000 * (20 << 20), "reads of what came back": 1}


def test_a_tensor_freed_after_its_copy_gives_its_memory_to_the_next_one(tmp_path):
    done = run(
        """
store = SwapStore("cuda", 64 * GIB)
saved = []
for _ in range(40):
    saved.append(store.save(torch.empty(GIB, dtype=torch.uint8, device="cuda")))
    store.layer_ended()
print(json.dumps([used() // GIB, torch.cuda.max_memory_allocated() // GIB]))
""",
        tmp_path,
    )
    used_gib, most = done.answer()
    assert most == 2, "two layers in flight at most"
    assert used_gib <= 3


def test_when_pinned_memory_cannot_be_had_the_rest_stays_on_the_device(tmp_path):
    done = run(
        """
try:
    torch.empty(GIB // 2, dtype=torch.uint8, pin_memory=True)
    raise SystemExit("torch got more pinned memory than there is")
except torch.AcceleratorError:
    pass
store = SwapStore("cuda", 64 * GIB)
tensors = [torch.full((64 << 18,), number, dtype=torch.int32, device="cuda") for number in range(8)]
saved = [store.save(tensor) for tensor in tensors]
del tensors
store.let_go()
stats = store.stats()
torch.cuda.synchronize()  # no error of ours is left for torch to find
print(json.dumps({
    "swapped": sum(each.swapped_bytes for each in saved), "kept": store.held_bytes,
    "pinned": stats.pinned_bytes, "may": stats.pinned_limit_bytes,
    "held": torch.cuda.memory_allocated(),
    "values": [int(each.get()[0]) + int(each.get()[-1]) for each in saved],
}))
""",
        tmp_path,
        EBBTIDE_DRYRUN_PINNED="256MiB",
        EBBTIDE_DRYRUN_COMPUTE_LIMIT="128MiB",
    )
    answer = done.answer()
    mib = 1 << 20
    assert answer.pop("values") == [2 * number for number in range(8)]
    assert answer["pinned"] == answer["may"] <= 256 * mib
    assert 180 * mib <= answer["swapped"] < 256 * mib
    assert answer["kept"] == answer["held"] == 512 * mib - answer["swapped"]
    lines = [line for line in done.stderr.splitlines() if line.startswith("ebbtide warning")]
    assert len(lines) == 1
    assert "pinned host memory" in lines[0]
    assert "going on with" in lines[0]


def test_a_failed_prefetch_for_lack_of_device_memory_is_tried_again_by_get(tmp_path):
    done = run(
        """
store = SwapStore("cuda", 64 * GIB)
saved = store.save(torch.full((3 << 26,), 7, dtype=torch.int32, device="cuda"))
store.let_go()
others = torch.empty(3 * GIB // 4, dtype=torch.uint8, device="cuda")
saved.prefetch()
try:
    saved.get()
except torch.OutOfMemoryError:
    del others
    print(json.dumps([store.stats().copies_in, int(saved.get()[-1])]))
""",
        tmp_path,
        capacity="1GiB",
        EBBTIDE_DRYRUN_COMPUTE_LIMIT="1GiB",
    )
    assert done.answer() == [0, 7]


def test_the_device_stays_as_the_program_set_it(tmp_path):
    done = run(
        """
store = SwapStore("cuda:1", GIB)
saved = store.save(torch.ones(4096, dtype=torch.int32, device="cuda:1"))
store.let_go()
print(json.dumps([torch.cuda.current_device(), saved.get().device.index, int(saved.get().sum())]))
""",
        tmp_path,
        count=2,
    )
    assert done.answer() == [0, 1, 4096]


def test_a_device_that_is_not_there_is_named(tmp_path):
    done = run(
        """
try:
    SwapStore("cuda:7", GIB)
except RuntimeError as error:
    print(json.dumps(str(error)))
""",
        tmp_path,
    )
    assert done.answer() == "there is no CUDA device 7: the runtime has 1"
