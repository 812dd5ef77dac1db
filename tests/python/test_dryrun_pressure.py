"""A device that is nearly full: what is idle in the arena goes to whoever needs it, and comes back."""

from __future__ import annotations

import pytest
from dryrun_run import simulate

pytestmark = pytest.mark.usefixtures("native")

# Rounds of 16 tensors; from the fourth on every other one is freed, and in round 4 one is asked for that fits into none of the
# gaps, nor beside the arena, on a stream that is not planned. What is written into tensors that live on is read at the end of each round.
ROUNDS = """
import ebbtide

def tensor(mib, value):
    return torch.full((mib << 18,), value, dtype=torch.int32, device="cuda")

def read(tensors):
    return [(int(x.min()), int(x.max())) for x in tensors]

torch.zeros(1, device="cuda")
other = torch.cuda.Stream()
served, right, held, lost = [], [], [], 0
for number in range(8):
    ebbtide.step()
    before = ebbtide.stats("cuda:0").planned_bytes
    tensors = [tensor(40, i) for i in range(16)]
    served.append((ebbtide.stats("cuda:0").planned_bytes - before) >> 20)
    if number >= 3:
        del tensors[::2]
    if number == 4:
        {work}
        held.append(ebbtide.stats("cuda:0").arena_bytes >> 20)
    expected = range(1, 16, 2) if number >= 3 else range(16)
    right.append(read(tensors) == [(i, i) for i in expected])
    del tensors
    ebbtide.wait_for_plans()
    held.append(ebbtide.stats("cuda:0").arena_bytes >> 20)
stats = torch.cuda.memory_stats()
print(json.dumps([served, right, held, stats["num_ooms"], torch.cuda.memory_reserved() >> 20]))
"""
LARGE = """
        with torch.cuda.stream(other):
            large = tensor(240, 77)
            right.append(read([large]) == [(77, 77)])
            del large
"""
TOO_LARGE = """
        try:
            with torch.cuda.stream(other):
                tensor(600, 1)
        except torch.OutOfMemoryError as error:
            lost += 1
        right.append(lost == 1)
"""


def run(tmp_path, native, work, capacity="800MiB"):
    done = simulate(
        ROUNDS.replace("        {work}", work.strip("\n")),
        tmp_path,
        capacity=capacity,
        EBBTIDE="1",
        EBBTIDE_NATIVE_DIR=str(native),
        EBBTIDE_REPORT="off",
        EBBTIDE_DRYRUN_COMPUTE_LIMIT="1GiB",
        TORCH_DEVICE_BACKEND_AUTOLOAD="1",
    )
    return done.answer()


def test_what_is_idle_between_tensors_is_given_to_what_fits_nowhere_else(tmp_path, native):
    served, right, held, failures, reserved = run(tmp_path, native, LARGE)
    # THEN it is served, nothing that was alive changes, and the program sees no failure
    assert all(right) and failures == 0
    # AND the arena holds less meanwhile, and is whole again when the next round is served as planned
    assert min(held) < 640 and held[-1] >= 640
    assert served[3] == served[-1] == 640
    assert reserved <= 800


def test_what_fits_nowhere_at_all_is_out_of_memory_as_before_and_the_rest_goes_on(tmp_path, native):
    served, right, held, failures, _ = run(tmp_path, native, TOO_LARGE)
    assert all(right) and failures == 1
    assert served[-1] == 640 and held[-1] >= 640


def test_a_device_with_room_is_not_touched(tmp_path, native):
    served, right, held, failures, _ = run(tmp_path, native, LARGE, capacity="4GiB")
    assert all(right) and failures == 0
    assert served[3:] == [640] * 5 and min(held[3:]) >= 640
