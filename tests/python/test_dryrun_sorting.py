"""Operators that sort, choose, count and search, and convolutions of single channels: what they are charged, by hand."""

from __future__ import annotations

import pytest
from dryrun_run import simulate
from test_dryrun_time import MEMORY, TIMED

ELEMENTS = 1 << 24
ELEMENT = 3.2e-12


def seconds(program, tmp_path):
    return simulate(TIMED + f"n = {ELEMENTS}\n" + program, tmp_path).answer()


def test_a_sort_goes_over_keys_and_indices_once_for_each_byte_of_a_key(tmp_path):
    found = seconds(
        """
x, half, whole = (torch.empty(n, dtype=kind, device="cuda") for kind in (torch.float32, torch.bfloat16, torch.int64))
print(json.dumps([timed_behind(work) for work in (
    lambda: torch.sort(x), lambda: torch.sort(half), lambda: torch.sort(whole), lambda: torch.sort(x.view(256, -1)),
    lambda: torch.argsort(x), lambda: torch.randperm(n, device="cuda"),
)]))
""",
        tmp_path,
    )

    def passes(key: int, digits: int) -> int:
        return key + digits * 2 * (key + 8)

    bytes_of_key = [passes(4, 4), passes(2, 2), passes(8, 8), passes(4, 4) + passes(4, 1), passes(4, 4), passes(8, 8) + 8]
    # and an index for each, or a copy, before it
    for time, needed in zip(found, bytes_of_key, strict=True):
        assert 1 <= time / (needed * ELEMENTS / MEMORY) < 1.35


def test_choices_go_over_long_rows_by_bytes_and_give_short_ones_a_block_each(tmp_path):
    long, short, median = seconds(
        """
x, router = torch.empty(16, n // 16, device="cuda"), torch.empty(65536, 64, device="cuda")
print(json.dumps([timed_behind(work) for work in (
    lambda: x.topk(50), lambda: router.topk(8), lambda: router.median(-1),
)]))
""",
        tmp_path,
    )
    assert long == pytest.approx(5 * 4 * ELEMENTS / MEMORY, rel=0.1)
    waves = 65536 * 64 / 128 / (16 * 132)
    assert [short, median] == pytest.approx([waves * (1.3e-6 + 16 * 0.5e-6)] * 2, rel=0.1)


def test_counts_and_searches_take_an_element_at_a_time(tmp_path):
    count, search, large = seconds(
        """
x, table = torch.empty(n, device="cuda"), torch.empty(1 << 20, device="cuda")
print(json.dumps([timed_behind(work) for work in (
    lambda: torch.histc(x, 100, 0, 1), lambda: torch.bucketize(x, table[:64]), lambda: torch.searchsorted(table, x),
)]))
""",
        tmp_path,
    )
    assert [count, search, large] == pytest.approx([ELEMENT * ELEMENTS, ELEMENT * ELEMENTS, 7 * ELEMENT * ELEMENTS], rel=0.15)


def test_unique_sorts_before_it_goes_over_what_it_has_sorted(tmp_path):
    (found,) = seconds(
        """
ids = torch.zeros(n // 4, dtype=torch.int64, device="cuda")
print(json.dumps([timed_behind(lambda: ids.unique())]))
""",
        tmp_path,
    )
    needed = ELEMENTS / 4 * (8 + 8 * 32 + 4 * 16)
    assert 1 <= found / (needed / MEMORY) < 1.25


def test_convolutions_of_single_channels_sum_their_windows_without_tensor_cores(tmp_path):
    forward, backward, double = seconds(
        """
torch.backends.cudnn.enabled = False
def made(dtype):
    layer = torch.nn.Conv2d(256, 256, 7, padding=3, groups=256, bias=False, device="cuda", dtype=dtype)
    return layer, torch.empty(16, 256, 56, 56, device="cuda", dtype=dtype, requires_grad=True)
layer, image = made(torch.bfloat16)
out = layer(image)
gradient = torch.empty_like(out)
wide, wide_image = made(torch.float64)
times = [
    timed_behind(lambda: layer(image)),
    timed_behind(lambda: torch.autograd.grad(out, (image, layer.weight), gradient, retain_graph=True)),
    timed_behind(lambda: wide(wide_image)),
]
torch.ones(1, device="cuda", requires_grad=True).sum().backward()  # autograd's thread lets go of the pass before
print(json.dumps(times))
""",
        tmp_path,
    )
    flops = 2 * 16 * 256 * 56 * 56 * 49
    assert forward == pytest.approx(flops / (67e12 * 0.728), rel=0.05)
    assert backward == pytest.approx(2 * forward, rel=0.1)
    assert double > 1.5 * forward


def test_sums_along_a_dimension_go_step_by_step_where_columns_are_summed(tmp_path):
    one, rows, columns = seconds(
        """
x = torch.empty(8, 4096, 512, device="cuda")
print(json.dumps([timed_behind(work) for work in (
    lambda: x.flatten().cumsum(0), lambda: x.view(32, -1).cumsum(-1), lambda: x.cumsum(1),
)]))
""",
        tmp_path,
    )
    assert one == pytest.approx(2 * 4 * ELEMENTS / MEMORY, rel=0.05)
    assert rows == pytest.approx(2 * ELEMENTS / 32 / 1024 * 0.5e-6, rel=0.05)
    assert columns == pytest.approx(4096 * 0.5e-6, rel=0.05)


def test_what_is_added_to_a_large_table_again_and_again_is_read_and_written_each_time(tmp_path):
    large, small = seconds(
        """
def add(rows):
    table, source = torch.empty(rows, 128, device="cuda"), torch.empty(n // 16, 128, device="cuda")
    to = torch.zeros(n // 16, dtype=torch.long, device="cuda")
    return timed_behind(lambda: table.index_add_(0, to, source))
print(json.dumps([add(n // 64), add(100)]))
""",
        tmp_path,
    )
    source, indices = ELEMENTS / 16 * 512, ELEMENTS / 16 * 8
    assert large == pytest.approx((3 * source + indices) / MEMORY, rel=0.05)
    assert small == pytest.approx((source + indices) / MEMORY, rel=0.05)
