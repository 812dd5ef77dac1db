"""Operators that touch less, or more often, than their arguments are long: what they are charged, by hand."""

from __future__ import annotations

import pytest
from dryrun_run import simulate
from test_dryrun_time import MEMORY, TIMED

ELEMENTS = 1 << 26


def seconds(program, tmp_path):
    return simulate(TIMED + f"n = {ELEMENTS}\n" + program, tmp_path).answer()


def test_random_numbers_are_written_and_not_read_before(tmp_path):
    found = seconds(
        """
x = torch.empty(n, device="cuda")
print(json.dumps([timed_behind(draw) for draw in (x.normal_, x.uniform_, x.exponential_)]))
""",
        tmp_path,
    )
    assert found == pytest.approx([4 * ELEMENTS / MEMORY] * 3, rel=0.01)


def test_a_tensor_that_is_given_twice_is_read_once(tmp_path):
    square, other, nan, second = seconds(
        """
x, y = torch.empty(n, device="cuda"), torch.empty(n, device="cuda")
print(json.dumps([timed_behind(work) for work in (
    lambda: x * x, lambda: x * y, lambda: torch.isnan(x), lambda: torch._foreach_addcmul_([x], [y], [y]),
)]))
""",
        tmp_path,
    )
    one = 4 * ELEMENTS / MEMORY
    assert [square, other, nan, second] == pytest.approx([2 * one, 3 * one, 1.25 * one, 3 * one], rel=0.01)


def test_conversions_to_eight_bits_take_vectors(tmp_path):
    found = seconds(
        """
x = torch.empty(n, dtype=torch.bfloat16, device="cuda")
wide = torch.empty(n, device="cuda")
print(json.dumps([timed_behind(lambda: x.to(torch.float8_e4m3fn)), timed_behind(lambda: wide.to(torch.float8_e5m2))]))
""",
        tmp_path,
    )
    assert found == pytest.approx([3 * ELEMENTS / MEMORY, 5 * ELEMENTS / MEMORY], rel=0.01)


def test_places_of_a_large_tensor_take_their_own_bytes_only(tmp_path):
    found = seconds(
        """
cache = torch.empty(8, 8, n // 64 // 128, 128, device="cuda")
token, at = torch.empty(8, 8, 1, 128, device="cuda"), torch.tensor([5], device="cuda")
spread = torch.zeros(8, 8, 1, 128, dtype=torch.long, device="cuda")
rows, to = torch.empty(n // 512, 128, device="cuda"), torch.arange(n // 512, device="cuda")
table = cache.view(-1, 128)
print(json.dumps([timed_behind(work) for work in (
    lambda: cache.index_copy_(2, at, token), lambda: cache.__setitem__((slice(None), slice(None), at), token),
    lambda: cache.scatter_(2, spread, token), lambda: cache.index_fill_(2, at, 0.0),
    lambda: table.index_add_(0, to, rows), lambda: table.index_put_((to,), rows),
)]))
""",
        tmp_path,
    )
    assert max(found[:4]) < 10e-6  # all of the cache, read and written: 133 us
    # a quarter of the table: added to it and written, the other operand read, and 8 bytes of index for each row
    quarter = ELEMENTS // 4 * 4 / MEMORY
    assert found[4:] == pytest.approx([(3 + 8 / 512) * quarter] * 2, rel=0.02)


def test_what_is_added_at_indices_sorts_them(tmp_path):
    many, few, written = seconds(
        """
values, at = torch.empty(1 << 22, 4, device="cuda"), torch.empty(1 << 22, dtype=torch.int64, device="cuda")
def put(rows, adds):
    table = torch.empty(rows, 4, device="cuda")
    return timed_behind(lambda: table.index_put_((at,), values, accumulate=adds))
print(json.dumps([put(1 << 20, True), put(1 << 8, True), put(1 << 8, False)]))
""",
        tmp_path,
    )
    # An index of 20 bits takes three digits, one of 8 bits one; with each goes where it came from.
    digit = (1 << 22) * 2 * 16 / MEMORY
    table = 2 * ((1 << 20) - (1 << 8)) * 16 / MEMORY
    assert many - few == pytest.approx(2 * digit + table, rel=0.1)
    assert few - written > digit + (1 << 22) * 8 / MEMORY


def test_a_bag_of_embeddings_reads_the_rows_that_it_sums(tmp_path):
    (found,) = seconds(
        """
table = torch.empty(n // 64, 64, device="cuda")
rows, begins = torch.arange(1 << 18, device="cuda"), torch.arange(0, 1 << 18, 16, device="cuda")
print(json.dumps([timed_behind(lambda: torch.nn.functional.embedding_bag(rows, table, begins))]))
""",
        tmp_path,
    )
    assert (1 << 18) * 64 * 4 / MEMORY < found < 0.5 * 4 * ELEMENTS / MEMORY


def test_norms_over_groups_and_batches_read_twice(tmp_path):
    found = seconds(
        """
x = torch.empty(16, 64, 256, 256, device="cuda")
weight = torch.ones(64, device="cuda")
aten = torch.ops.aten
_, mean, scale = aten.native_batch_norm(x, weight, weight, None, None, True, 0.1, 1e-5)
group = torch.empty(16, 8, device="cuda")
print(json.dumps([timed_behind(work) for work in (
    lambda: aten.native_batch_norm(x, weight, weight, None, None, True, 0.1, 1e-5),
    lambda: aten.native_batch_norm(x, weight, weight, weight, weight, False, 0.1, 1e-5),
    lambda: aten.native_batch_norm_backward(x, x, weight, None, None, mean, scale, True, 1e-5, [True] * 3),
    lambda: aten.native_group_norm(x, weight, weight, 16, 64, 65536, 8, 1e-5),
    lambda: aten.native_group_norm_backward(x, x, group, group, weight, 16, 64, 65536, 8, [True] * 3),
)]))
""",
        tmp_path,
    )
    one = 4 * ELEMENTS / MEMORY
    assert found == pytest.approx([passes * one for passes in (3, 2, 5, 3, 5)], rel=0.03)


def test_backward_of_pooling_does_not_read_what_was_pooled(tmp_path):
    found = seconds(
        """
x, half = torch.empty(16, 64, 256, 256, device="cuda"), torch.empty(16, 64, 128, 128, device="cuda")
aten = torch.ops.aten
print(json.dumps([timed_behind(lambda: aten.avg_pool2d_backward(half, x, [2, 2], [2, 2], [0, 0], False, True, None))]))
""",
        tmp_path,
    )
    assert found == pytest.approx([1.25 * 4 * ELEMENTS / MEMORY], rel=0.01)


def test_a_result_that_the_operator_makes_room_for_is_written(tmp_path):
    found = seconds(
        """
real, imaginary = (torch.empty(n, device="cuda") for _ in range(2))
made = torch.complex(real, imaginary)
print(json.dumps([timed_behind(work) for work in (
    lambda: torch.complex(real, imaginary), lambda: torch.complex(real, imaginary, out=made),
)]))
""",
        tmp_path,
    )
    assert found == pytest.approx([(4 + 4 + 8) * ELEMENTS / MEMORY] * 2, rel=0.01)


def test_a_distance_of_two_points_is_a_block_of_threads(tmp_path):
    found = seconds(
        """
boxes, wanted = torch.empty(4800, 4, device="cuda"), torch.empty(160, 4, device="cuda")
print(json.dumps([timed_behind(lambda: torch.cdist(boxes, wanted, p=p)) for p in (1.0, 2.0)]))
""",
        tmp_path,
    )
    # 256 threads each, 8 at once on a multiprocessor; Euclidean ones are a product.
    assert found[0] == pytest.approx(4800 * 160 / (8 * 132) * (1.3e-6 + 2 * 2.4e-9), rel=0.01)
    assert found[1] < 0.05 * found[0]


def test_complex_products_take_their_operations(tmp_path):
    found = seconds(
        """
a = torch.empty(4096, 4096, dtype=torch.complex64, device="cuda")
batch = a.view(16, 1024, 1024)
print(json.dumps([timed_behind(lambda: a @ a), timed_behind(lambda: batch @ batch)]))
""",
        tmp_path,
    )
    assert found[0] > 8 * 4096**3 / 67e12
    assert found[1] > 16 * 8 * 1024**3 / 67e12
    assert max(found) < 2 * 8 * 4096**3 / 67e12
