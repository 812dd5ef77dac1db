"""`ebbtide fit`: the search on made-up peaks, and the command on a small program."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from dryrun_run import ROOT, simulate
from ebbtide._fit import Curve, FitError, Plan, Run, check, search

GIB = 1 << 30


def peaks(length: int) -> int:
    """16 GiB of weights, 1 MiB a token, and a square."""
    return 16 * GIB + length * (1 << 20) + length * length // 4


def run_at(length: int, capacity: float = 1e18) -> Run:
    return Run(length, peaks(length) <= capacity, peaks(length), {})


def test_the_curve_goes_through_peaks_and_beyond():
    curve = Curve([run_at(length) for length in (2048, 8192, 32768)])
    for length in (0, 5000, 100_000):
        assert curve(length) == pytest.approx(peaks(length), rel=1e-6)
    assert curve.longest(peaks(60_000), 1 << 24) == pytest.approx(60_000, abs=2)
    assert curve.longest(1 << 60, most=70_000) == pytest.approx(70_000, abs=1)


@pytest.mark.parametrize("overhead", [1.0, 1.1, 1.5])
@pytest.mark.parametrize("capacity", [24 * GIB, 80 * GIB, 141 * GIB])
def test_the_search_ends_next_to_the_longest_that_fits(overhead, capacity):
    # GIVEN an allocator that needs more than what is live
    tried = []

    def attempt(length):
        tried.append(length)
        return Run(length, peaks(length) * overhead <= capacity, peaks(length), {})

    curve = Curve([run_at(length) for length in (2048, 8192, 32768)])
    best, fails = search(curve, capacity, attempt, 1 << 24, 1024)
    longest = max(n for n in range(1024, 1 << 18, 1024) if peaks(n) * overhead <= capacity) if peaks(
        1024
    ) * overhead <= capacity else 0
    assert len(tried) <= 7
    reached = 0 if best is None else best.length
    assert reached <= longest and (fails is None or fails > longest)
    assert reached >= 0.85 * longest - 1024


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        (Plan([], ["h200"]), "no command given"),
        (Plan(["python", "train.py"], ["h200"]), "names no length"),
        (Plan(["train", "{}"], ["h300"]), "--device h300: unknown device"),
        (Plan(["train", "{}"], ["h200"], host="much"), "--host much: not a size"),
        (Plan(["train", "{}"], ["h200"], only=["fast"]), "--setting fast: unknown setting"),
    ],
)
def test_what_cannot_be_searched_is_one_line(plan, said, monkeypatch):
    monkeypatch.setenv("EBBTIDE_DRYRUN_DEVICES", str(ROOT / "dryrun" / "devices"))
    with pytest.raises(FitError, match=said):
        check(plan)


PROGRAM = """
import sys, torch
length = int(sys.argv[1])
weight = torch.nn.Parameter(torch.zeros(1, device="cuda"))
optimizer = torch.optim.SGD([weight], lr=0.1)
for _ in range({steps}):
    loss = (weight * torch.zeros(length * 256 * 1024, device="cuda")).sum()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
"""


def fit(tmp_path, steps, *more):
    simulate("pass", tmp_path)  # skips where there are no stand-ins
    program = tmp_path / "train.py"
    program.write_text(PROGRAM.format(steps=steps))
    return subprocess.run(
        [sys.executable, "-m", "ebbtide", "fit", *more, "--", sys.executable, str(program), "{}"],
        env={**os.environ, "PYTHONPATH": str(ROOT / "python_shim"), "CUDA_VISIBLE_DEVICES": ""},
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_a_program_that_never_steps_is_one_line(tmp_path):
    done = fit(tmp_path, 0, "--most", "1024", "--setting", "as it is")
    assert done.returncode == 2
    assert "ended after 0 training steps; fit needs 2" in done.stderr.splitlines()[-1]


def test_the_longest_length_of_a_small_program_is_found(tmp_path):
    # 1 MiB a unit of length: the numbers, their products and the products' gradients
    done = fit(tmp_path, 3, "--device", "rtx4090", "--json", "--step", "64", "--most", "8192", "--setting", "as it is")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert [row["setting"] for row in rows] == ["as it is"]
    most = 24209 / 2  # MiB; two of the three are alive at once at least
    for row in rows:
        assert 0.5 * min(most, 8192) <= row["longest"] <= most
        assert row["time"]["step_seconds"] > 0
