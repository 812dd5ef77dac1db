"""Integer and boolean operators give on a simulated device what they give on the host."""

from __future__ import annotations

import inspect

import pytest
from dryrun_run import simulate

CASES = """
def a(d, n=10): return torch.arange(n, device=d)

CASES = {
    "arange": lambda d: a(d),
    "cumsum": lambda d: a(d).cumsum(0),
    "comparison": lambda d: a(d)[None] <= a(d)[:, None],
    "logic": lambda d: (a(d) > 2) & ~(a(d) > 5) | (a(d) == 9),
    "any_all": lambda d: [(a(d) > 3).any().item(), (a(d) > 3).all().item()],
    "where": lambda d: torch.where(a(d) > 3, a(d), -1),
    "sort": lambda d: (a(d) * 7 % 10).sort(),
    "argsort": lambda d: (a(d) * 7 % 10).argsort(descending=True),
    "unique": lambda d: (a(d) % 3).unique(return_inverse=True, return_counts=True),
    "unique_consecutive": lambda d: torch.tensor([3, 3, 8, 3], device=d).unique_consecutive(),
    "nonzero": lambda d: (a(d) % 3).nonzero(),
    "nonzero_tuple": lambda d: (a(d).view(2, 5) % 3 == 1).nonzero(as_tuple=True),
    "mask_index": lambda d: a(d)[a(d) % 3 == 1],
    "masked_select": lambda d: torch.masked_select(a(d), a(d) > 5),
    "index": lambda d: a(d)[torch.tensor([3, 8], device=d)],
    "slice_and_transpose": lambda d: a(d).view(2, 5).t()[1:4].contiguous(),
    "reductions": lambda d: [a(d).sum(), a(d).max(), a(d).view(2, 5).amin(1), a(d)[1:5].prod()],
    "max_dim": lambda d: a(d).view(2, 5).max(1),
    "topk": lambda d: a(d).topk(3),
    "gather_scatter": lambda d: torch.zeros(3, 4, dtype=torch.long, device=d).scatter_(
        1, torch.tensor([[0], [1], [2]], device=d), 5).gather(1, torch.tensor([[0], [1], [3]], device=d)),
    "index_add": lambda d: a(d).index_add_(0, torch.tensor([3, 8], device=d), torch.tensor([3, 8], device=d)),
    "index_put": lambda d: in_place(d),
    "out": lambda d: torch.add(a(d), 1, out=torch.empty(10, dtype=torch.long, device=d)),
    "out_resized": lambda d: torch.mul(a(d), 3, out=torch.empty(0, dtype=torch.long, device=d)),
    "foreach": lambda d: foreach(d),
    "one_hot": lambda d: torch.nn.functional.one_hot(a(d)),
    "repeat_interleave": lambda d: a(d).repeat_interleave(a(d)),
    "bincount": lambda d: (a(d) % 4).bincount(),
    "cat_stack": lambda d: [torch.cat([a(d), a(d)]), torch.stack([a(d)] * 3)],
    "tril": lambda d: torch.ones(4, 4, dtype=torch.bool, device=d).tril(),
    "searchsorted": lambda d: torch.searchsorted(a(d), torch.tensor([3, 8], device=d)),
    "isin": lambda d: torch.isin(a(d), torch.tensor([3, 8], device=d)),
    "gcd": lambda d: torch.gcd(a(d), torch.tensor(6, device=d)),
    "dtypes": lambda d: [a(d).to(t).pow(2) for t in (torch.int8, torch.uint8, torch.int16, torch.int32)],
    "small_floats": lambda d: [a(d).float() * 0.5, torch.full((3,), -1.5, device=d), torch.ones(2, device=d)],
    "roundtrip": lambda d: a(d, 100000).to("cpu").to(d)[-3:],
    "large": lambda d: (a(d, 3000000) % 7 == 3).sum(),
    "unfold_strided": lambda d: a(d, 24).view(2, 3, 4).permute(2, 0, 1)[1:, :, ::2] + 1,
    "in_place_view": lambda d: in_place_view(d),
}

def in_place(d):
    x = torch.zeros(3, 4, dtype=torch.long, device=d)
    x[:, 1] = 7
    x[1] += a(d, 4)
    x[x == 7] = 9
    x.add_(x).bitwise_or_(1)
    return x

def in_place_view(d):
    x = a(d, 12)
    x.view(3, 4)[:, ::2].mul_(10)
    x[3:5].zero_()
    x[5:7].fill_(2)
    return x

def foreach(d):
    xs = [a(d), a(d, 4)]
    torch._foreach_add_(xs, 1)
    return xs

def flat(value):
    if torch.is_tensor(value):
        return [value.tolist(), str(value.dtype)]
    return [flat(v) for v in value] if isinstance(value, (list, tuple)) else value
"""

NAMES = [line.split('"')[1] for line in CASES.splitlines() if line.startswith('    "')]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    done = simulate(
        inspect.cleandoc(CASES)
        + """
outcomes = {}
for name, case in CASES.items():
    before = reads()
    expected, seen = flat(case("cpu")), flat(case("cuda"))
    outcomes[name] = {"same": expected == seen, "seen": str(seen)[:200], "reads": reads() - before}
print(json.dumps(outcomes))
""",
        tmp_path_factory.mktemp("integers"),
    )
    return done.answer()


@pytest.mark.parametrize("name", NAMES)
def test_integer_operators_are_computed(outcomes, name):
    assert outcomes[name]["same"], outcomes[name]
    assert outcomes[name]["reads"] == 0


def test_random_integers_are_in_range_and_leave_the_host_generator_alone(tmp_path):
    done = simulate(
        """
        torch.manual_seed(3)
        expected = torch.rand(3)
        torch.manual_seed(3)
        x = torch.randint(5, 10, (1000,), device="cuda")
        order = torch.randperm(50, device="cuda")
        print(json.dumps([x.min().item(), x.max().item(), len(x.unique()) > 1,
                          order.sort().values.tolist() == list(range(50)),
                          torch.equal(torch.rand(3), expected), reads()]))
        """,
        tmp_path,
    )
    assert done.answer() == [5, 9, True, True, True, 0]


def test_values_of_kernels_are_typical_ones_and_counted(tmp_path):
    done = simulate(
        """
        x = torch.randn(4, device="cuda")
        before = reads()
        seen = [(x @ x).item(), x.argmax().item(), bool(x.isfinite().all()),
                [0 < value < 1 for value in x.tolist()]]
        print(json.dumps([before, seen, reads()]))
        """,
        tmp_path,
    )
    assert done.answer() == [0, [1.0, 0, True, [True] * 4], 4]
    assert done.report["uncomputed_reads"] == 4
    assert done.report["first_uncomputed_read"] == "aten::_local_scalar_dense (Float [])"
    assert "read 4 value(s)" in done.stderr and "_local_scalar_dense" in done.stderr


def test_what_is_derived_from_uncomputed_values_is_not_called_computed(tmp_path):
    # GIVEN integers of which some come from a floating-point kernel
    done = simulate(
        """
        known = torch.arange(4, device="cuda")
        unknown = torch.randn(4, device="cuda").argmax(keepdim=True)
        mixed = torch.cat([known, unknown])
        before = reads()
        first = mixed[:4].sum().item()
        print(json.dumps([first, reads() - before, known.sum().item(), reads() - before]))
        """,
        tmp_path,
    )
    # THEN everything made from them is counted, and what was known stays so
    assert done.answer() == [6, 1, 6, 1]


def test_reused_memory_does_not_keep_old_values(tmp_path):
    done = simulate(
        """
        x = torch.full((1000,), 7, device="cuda", dtype=torch.int64)
        address = x.data_ptr()
        del x
        y = torch.empty(1000, device="cuda", dtype=torch.int64)
        same = y.data_ptr() == address
        seen = y[0].item()
        del y
        z = torch.randn(2000, device="cuda")
        print(json.dumps([same, seen, z.data_ptr() == address, z[0].item(), reads()]))
        """,
        tmp_path,
    )
    assert done.answer() == [True, 0, True, 1.0, 2]


def test_threads_compute_too(tmp_path):
    done = simulate(
        """
        import threading
        seen = []
        def work():
            seen.append((torch.arange(5, device="cuda") + 1).tolist())
        threads = [threading.Thread(target=work) for _ in range(3)]
        for t in threads: t.start()
        for t in threads: t.join()

        class Count(torch.autograd.Function):
            @staticmethod
            def forward(ctx, x): return x.clone()
            @staticmethod
            def backward(ctx, g):
                seen.append(torch.arange(4, device="cuda").cumsum(0).tolist())
                return g
        Count.apply(torch.randn(3, device="cuda", requires_grad=True)).sum().backward()
        print(json.dumps([seen, reads()]))
        """,
        tmp_path,
    )
    assert done.answer() == [[[1, 2, 3, 4, 5]] * 3 + [[0, 1, 3, 6]], 0]


def test_the_devices_own_allocations_stay_as_they_are(tmp_path):
    # A sort of integers needs scratch memory on a device; computing it on the host must not hide that.
    done = simulate(
        """
        x = torch.arange(1 << 20, device="cuda", dtype=torch.int64)
        torch.cuda.reset_peak_memory_stats()
        base = torch.cuda.memory_allocated()
        values, order = x.sort()
        print(json.dumps([(torch.cuda.max_memory_allocated() - base) >> 20,
                          (torch.cuda.memory_allocated() - base) >> 20]))
        """,
        tmp_path,
    )
    peak, kept = done.answer()
    assert kept == 16 and peak > 16


def test_places_of_a_sparse_gradient_are_joined_by_their_indices(tmp_path):
    done = simulate(
        """
        table = torch.nn.Embedding(1000, 64, sparse=True).cuda()
        optimizer = torch.optim.SparseAdam(table.parameters())
        rows = torch.tensor([3, 5, 3, 999, 5, 7], device="cuda")
        for _ in range(3):
            table(rows).pow(2).sum().backward()
            joined = table.weight.grad.coalesce()
            optimizer.step()
            optimizer.zero_grad()
        print(json.dumps([joined._nnz(), list(joined._values().shape)]))
        """,
        tmp_path,
    )
    assert done.answer() == [4, [4, 64]]
