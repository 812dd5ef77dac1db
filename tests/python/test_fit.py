"""`ebbtide fit`: the search on made-up peaks, and the command on a small program."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from dryrun_run import ROOT, simulated_environment
from ebbtide._fit import FitError, Plan, check, settings
from ebbtide._fit_runs import Run, Runner, Setting, judged
from ebbtide._fit_search import Curve, Search
from interrupts import hear_ctrl_c

GIB = 1 << 30
MIB = 1 << 20


def quadratic(length: int) -> Run:
    """16 GiB of weights, 1 MiB a token, and a square."""
    live = 16 * GIB + length * MIB + length * length // 4
    return Run(length, True, live, live)


def offloaded(length: int, budget: int) -> Run:
    """Half of each token's bytes go to the host, as long as there is room; then it keeps some of them only."""
    host = min(length * MIB // 2, budget)
    live = 60 * GIB + length * MIB // 32 + int(0.8 * (length * MIB // 2 - host))
    return Run(length, True, live, live, host)


def test_the_curve_goes_through_peaks_and_beyond_and_flattens_nothing():
    def peak(length):
        return quadratic(length).live

    curve = Curve([(length, peak(length)) for length in (2048, 8192, 32768)])
    for length in (1, 5000, 100_000):
        assert curve(length) == pytest.approx(peak(length), rel=1e-6)
    assert curve.longest(peak(60_000), 1 << 24) == pytest.approx(60_000, abs=2)
    assert curve.longest(1 << 60, most=70_000) == 70_000
    # a threshold between the first two bends it downwards: what comes after goes on straight
    bent = Curve([(10, 100.0), (20, 180.0), (40, 220.0)])
    assert bent(80) == pytest.approx(300.0)


def search(run, capacity, budget=None, overhead=1.0, most=1 << 24, known=(), compacts=True):
    """The search's answer for programs whose peaks `run` tells, and how many lengths it tried."""
    measured = [dataclasses.replace(one, held=int(one.live * overhead)) for one in map(run, (8192, 32768, 131072))]
    found = Search(measured, capacity, budget, most, 1024, compacts, known)
    tried = 0
    while lengths := found.propose():
        assert len(lengths) <= 2 and all(n % 1024 == 0 and 0 < n <= most for n in lengths)
        for length in lengths:
            tried += 1
            one = run(length)
            ok = one.live * overhead <= capacity
            found.tell(Run(length, ok, one.live, int(one.live * overhead), one.host, "" if ok else "device"))
    return found, tried


@pytest.mark.parametrize("overhead", [1.0, 1.005, 1.1, 1.5])
@pytest.mark.parametrize("capacity", [15 * GIB, 24 * GIB, 80 * GIB, 141 * GIB, 400 * GIB])
@pytest.mark.parametrize("budget", [None, 16 * GIB, 128 * GIB])
def test_the_search_ends_next_to_the_longest_that_fits(overhead, capacity, budget):
    # GIVEN an allocator that needs more than what is live, and a program with or without offload
    def run(length):
        return quadratic(length) if budget is None else offloaded(length, budget)

    found, tried = search(run, capacity, budget, overhead, compacts=overhead < 1.05)
    longest, step = 0, 1 << 21  # by bisection: what fits is all that is shorter
    while (step := step // 2) >= 1024:
        longest += step * (run(longest + step).live * overhead <= capacity)
    reached = found.best.length if found.best else 0
    # THEN what it tells ran, and what it tells as failing is near and did not
    assert reached <= longest < found.fails.length
    assert found.fails.length - reached <= max(1024, 0.03 * found.fails.length)
    assert tried <= 10


def test_an_exact_prediction_is_confirmed_by_two_or_three_runs():
    for capacity in (40, 80, 141, 200):
        found, tried = search(quadratic, capacity * GIB)
        assert tried <= 3 and found.best and found.fails


def test_a_like_device_is_confirmed_at_the_same_lengths():
    first, _ = search(quadratic, 80 * GIB, overhead=1.1)
    again, tried = search(quadratic, 80 * GIB, overhead=1.1, known=[first.best.length, first.fails.length])
    assert tried == 2 and again.best.length == first.best.length and again.fails.length == first.fails.length


def test_a_better_allocator_begins_where_the_one_before_it_ended():
    # GIVEN where the search ended with an allocator that needs 2 % more than what is live
    first, _ = search(quadratic, 80 * GIB, overhead=1.02)
    ends = [first.best.length, first.fails.length]
    # THEN one that needs as much is settled by these two, and one that needs less soon after
    assert search(quadratic, 80 * GIB, overhead=1.02, known=ends)[1] == 2
    better, tried = search(quadratic, 80 * GIB, overhead=1.0, known=ends)
    assert tried <= 4 and better.best.length >= first.best.length


def test_settings_are_in_order_and_ours_needs_ebbtide_to_start():
    found = {setting.name: setting for setting in settings("128GiB")}
    assert list(found) == ["as it is", "expandable segments", "EBBTIDE=1", "offload"]
    ours = found["EBBTIDE=1"]
    assert ours.variables["EBBTIDE"] == "1" and ours.variables["EBBTIDE_STRICT"] == "1"
    assert (ours.same_bytes_as, ours.begins_with) == ("as it is", "expandable segments")


def test_no_length_beyond_the_longest_of_interest_is_tried():
    found, _ = search(quadratic, 400 * GIB, most=200_000)
    assert found.best.length == 199_680 and found.fails is None


REPORT = {"devices": [{"peak_bytes": 9}], "torch": None, "peak_pinned_bytes": 5, "time": {"steps": 2}}


def test_what_became_of_a_run_is_told_by_its_words():
    assert judged(8, 0, "", REPORT) == Run(8, True, 9, 9, 5, "", REPORT)
    assert judged(8, 1, "torch.OutOfMemoryError: CUDA out of memory.", REPORT).limit == "device"
    assert judged(8, 1, "EbbtideError: 1.0 GiB left: raise EBBTIDE_HOST (host=) or", REPORT).limit == "host"
    with pytest.raises(FitError, match="at length 8 the program fails: ValueError: too long .--most"):
        judged(8, 1, "Traceback\n  File\nValueError: too long\n", REPORT)
    with pytest.raises(FitError, match="used no device: python: can't open file"):
        judged(8, 2, "python: can't open file", None)


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        (Plan([], ["h200"]), "no command given"),
        (Plan(["--capacity", "1GiB", "--", "python", "{}"], ["h200"]), "--capacity: no such option"),
        (Plan([__file__, "{}"], ["h200"]), "test_fit.py: not a program by itself; write python"),
        (Plan(["python", "train.py"], ["h200"]), "names no length"),
        (Plan(["train", "{}"], ["h300"]), "--device h300: unknown device"),
        (Plan(["train", "{}"], ["h200"], host="much"), "--host much: not a size"),
        (Plan(["train", "{}"], ["h200"], host="128"), "--host 128: that is 128 bytes; did you mean 128GiB"),
        (Plan(["train", "{}"], ["h200"], host="0GiB"), "--host 0GiB: not a size"),
        (Plan(["train", "{}"], ["h200"], step=0), "--step 0: write a number above 0"),
        (Plan(["train", "{}"], ["h200"], most=100), "--step 1024 is more than --most 100"),
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


def arguments(tmp_path, program, *more):
    simulated_environment(tmp_path)  # skips where there are no stand-ins
    script = tmp_path / "train.py"
    script.write_text(program)
    return [sys.executable, "-m", "ebbtide", "fit", *more, "--", sys.executable, str(script), "{}"]


ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT / "python_shim"), "CUDA_VISIBLE_DEVICES": ""}


def fit(tmp_path, steps, *more):
    return run_fit(arguments(tmp_path, PROGRAM.format(steps=steps), *more))


def run_fit(command):
    return subprocess.run(
        command, env=ENVIRONMENT, check=False, capture_output=True, text=True, timeout=300
    )


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["no-such-program", "{}"], "no-such-program: No such file or directory"),
        ([sys.executable, "-c", "raise ValueError('odd length {}')"], "ValueError: odd length 1"),
    ],
)
def test_a_program_that_cannot_run_is_one_line(command, said, tmp_path):
    start = arguments(tmp_path, "", "--most", "1", "--step", "1", "--setting", "as it is")
    done = run_fit([*start[: start.index("--") + 1], *command])
    assert done.returncode == 2 and done.stdout == ""
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ebbtide error fit: ") and said in last


def test_ctrl_c_leaves_what_is_known(tmp_path):
    # GIVEN a search that is over for one device, and never will be for the other
    program = """
import time
import torch
if torch.cuda.mem_get_info()[1] < 30e9:
    time.sleep(1000)
""" + PROGRAM.format(steps=3)
    more = ("--device", "h200", "--device", "rtx4090", "--most", "1", "--step", "1", "--setting", "as it is")
    with subprocess.Popen(
        arguments(tmp_path, program, *more),
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=hear_ctrl_c,
    ) as process:
        try:
            for line in process.stderr:
                if "h200: 1 fits" in line:
                    break
            # WHEN Ctrl-C comes
            process.send_signal(signal.SIGINT)
            said, complained = process.communicate(timeout=120)
        finally:
            process.kill()
    # THEN the first device's row is printed, nothing of the other, and no traceback
    rows = [line.split() for line in said.splitlines()[1:]]
    assert [row[0] for row in rows] == ["h200"] and "1" in rows[0]
    assert process.returncode == 130 and "Traceback" not in complained


def test_a_program_that_never_steps_is_one_line(tmp_path):
    done = fit(tmp_path, 0, "--most", "1024", "--setting", "as it is")
    assert done.returncode == 2
    assert "ended after 0 training steps; fit needs 2" in done.stderr.splitlines()[-1]


def test_the_longest_length_of_a_small_program_is_found(tmp_path):
    # 1 MiB a unit of length: the numbers, their products and the products' gradients
    chosen = ["as it is", "EBBTIDE=1"]
    more = [word for name in chosen for word in ("--setting", name)]
    done = fit(tmp_path, 3, "--device", "rtx4090", "--json", "--step", "64", "--most", "8192", *more)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert [row["setting"] for row in rows] == chosen
    most = 24209 / 2  # MiB; two of the three are alive at once at least
    for row in rows:
        assert 0.5 * min(most, 8192) <= row["longest"] <= most
        assert row["time"]["step_seconds"] > 0


@pytest.mark.parametrize(("end", "tries"), [("os.abort()", 2), ("sys.exit(1)", 1)])
def test_a_run_that_was_aborted_without_a_report_is_tried_once_more(tmp_path, end, tries):
    # GIVEN a program that ends before it uses a device
    seen = tmp_path / "seen"
    program = f"import os, sys; open({str(seen)!r}, 'a').write({'{}'!r} + ' '); {end}"
    runner = Runner([sys.executable, "-c", program], deadline=time.monotonic() + 60)
    # THEN only an abort is taken for chance, and only once
    with pytest.raises(FitError, match="used no device"):
        runner.start(512, "h200", None, Setting("as it is", {})).result()
    runner.close()
    assert seen.read_text().split() == ["512"] * tries
