"""Driver calls that fail, one at a time: the program sees torch's own error or nothing, loses no memory
and goes on."""

from __future__ import annotations

import json

import pytest
from conftest import PROGRAMS
from dryrun_run import simulated_environment

# kinds of calls as ebbtide_dryrun_fail has them, and the errors that torch has for them
KINDS = {
    "memory": (1, {"OutOfMemoryError"}),
    "events": (2, {"AcceleratorError"}),
    "copies": (4, {"AcceleratorError"}),
    "pinning": (8, {"AcceleratorError"}),
}
# the arena's own calls have another way to go
ABSORBED = ("memory", "events")


@pytest.mark.parametrize("kind", KINDS)
def test_each_call_of_an_iteration_may_fail(run_python, native, tmp_path, kind):
    kinds, allowed = KINDS[kind]
    done = run_python(
        [str(PROGRAMS / "faults.py"), str(kinds)],
        **simulated_environment(tmp_path, capacity="4GiB"),
        EBBTIDE="1",
        EBBTIDE_NATIVE_DIR=str(native),
        EBBTIDE_REPORT="off",
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["wrong"] == []
    assert result["calls"] > 0 and result["arena"] > 100
    assert set(result["errors"]) <= allowed | {"absorbed"}, result
    assert sum(result["errors"].values()) == result["calls"]
    assert (result["errors"].get("absorbed", 0) > 0) == (kind in ABSORBED), result


def test_a_failing_call_can_be_set_from_outside(run_python, native, tmp_path):
    done = run_python(
        """
        import torch
        try:
            torch.cuda.Event().record()
        except torch.AcceleratorError:
            torch.cuda.Event().record()
            print("failed once")
        """,
        **simulated_environment(tmp_path),
        EBBTIDE_DRYRUN_FAIL="1",
    )
    assert (done.returncode, done.stdout) == (0, "failed once\n"), done.stderr
