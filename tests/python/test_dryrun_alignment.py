"""Products whose rows are not aligned to 16 bytes, in virtual time of the real torch on a simulated H200."""

from __future__ import annotations

import json

import pytest
from dryrun_run import ROOT, simulate

SHARES = json.loads((ROOT / "dryrun" / "devices" / "h200.json").read_text())["efficiency"]
ROWS_4, ROWS_2 = (SHARES["matrix"]["value"] / SHARES[name]["value"] for name in ("matrix_rows_4", "matrix_rows_2"))

PRODUCTS = """
def timed(work):
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    work()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end)

def times(width, dtype=torch.bfloat16, places=0):
    # the head of a model: its result, then what is handed back, are what has rows of `width`
    def made(*shape):
        count = shape[0] * shape[1]
        return torch.empty(count + places, dtype=dtype, device="cuda")[places:].view(shape)
    x, weight, bias, out = made(8192, 4096), made(width, 4096), made(1, width)[0], made(8192, width)
    return [
        timed(lambda: x @ weight.T), timed(lambda: torch.addmm(bias, x, weight.T)),
        timed(lambda: out @ weight), timed(lambda: out.T @ x),
        timed(lambda: torch.bmm(x.view(2, 4096, 4096), weight.T.expand(2, 4096, width))),
    ]
"""


def slowdowns(tmp_path, *calls):
    """For each call the times of the five products, over those of the first."""
    done = simulate(PRODUCTS + f"print(json.dumps([{', '.join(calls)}]))", tmp_path)
    aligned, *others = done.answer()
    return [[time / first for time, first in zip(times, aligned, strict=True)] for times in others]


def test_an_odd_width_slows_every_product_that_has_it_whichever_matrix_it_is_of(tmp_path):
    odd, even, padded = slowdowns(tmp_path, "times(50176)", "times(50175)", "times(50174)", "times(50168)")
    assert odd == pytest.approx([ROWS_2] * 5, rel=0.06)
    assert even == pytest.approx([ROWS_4] * 5, rel=0.06)
    assert padded == pytest.approx([1] * 5, rel=0.06)  # a multiple of 8, which are 16 bytes


def test_views_that_begin_between_are_slow_too(tmp_path):
    (shifted,) = slowdowns(tmp_path, "times(8192)", "times(8192, places=7)")
    assert shifted == pytest.approx([ROWS_2] * 5, rel=0.06)


def test_tensor_float_minds_and_float32_does_not(tmp_path):
    plain = "times(8191, torch.float32)"
    (same,) = slowdowns(tmp_path, "times(8192, torch.float32)", plain)
    assert same == pytest.approx([1] * 5, rel=0.02)
    turn_on = "torch.set_float32_matmul_precision('high') or times(8192, torch.float32)"
    (slow,) = slowdowns(tmp_path, turn_on, plain)
    assert slow == pytest.approx([ROWS_4] * 5, rel=0.06)
