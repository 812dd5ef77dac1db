"""Dense linear algebra beyond products on simulated devices: factorisations, and what is made of them."""

from __future__ import annotations

from dryrun_run import ASKED_FOR, simulate

# Matrices on a device, and how long work on it takes (ms).
MATRICES = """
L = torch.linalg

def matrix(*shape, device="cuda", dtype=torch.float32):
    return torch.randn(*shape, device=device, dtype=dtype)

def symmetric(*shape, **where):
    a = matrix(*shape, **where)
    return a @ a.mT + torch.eye(shape[-1], device=a.device)

def milliseconds(work):
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    work()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end)
"""

WORK = """
WORK = {
    "eigh": lambda on: L.eigh(symmetric(64, 64, **on)),
    "eigh, large": lambda on: L.eigh(symmetric(600, 600, **on)),
    "eigh, batch": lambda on: L.eigh(symmetric(5, 8, 8, **on)),
    "eigvalsh": lambda on: L.eigvalsh(symmetric(3, 40, 40, **on)),
    "eig": lambda on: L.eig(matrix(16, 16, **on)),
    "svd": lambda on: L.svd(matrix(96, 64, **on), full_matrices=False),
    "svd, whole": lambda on: L.svd(matrix(64, 96, **on)),
    "svd, small": lambda on: L.svd(matrix(7, 16, 16, **on)),
    "svd, tall": lambda on: L.svd(matrix(7, 300, 40, **on), full_matrices=False),
    "svdvals": lambda on: L.svdvals(matrix(64, 64, **on)),
    "svd_lowrank": lambda on: torch.svd_lowrank(matrix(96, 64, **on), q=4),
    "pinv": lambda on: L.pinv(matrix(64, 32, **on)),
    "qr": lambda on: L.qr(matrix(96, 64, **on)),
    "qr, complete": lambda on: L.qr(matrix(64, 96, **on), mode="complete"),
    "qr, batch": lambda on: L.qr(matrix(40, 16, 16, **on)),
    "ormqr": lambda on: torch.ormqr(matrix(64, 16, **on), matrix(16, **on), matrix(64, 3, **on)),
    "orthogonal_": lambda on: torch.nn.init.orthogonal_(matrix(64, 32, **on)),
    "cholesky": lambda on: L.cholesky(symmetric(64, 64, **on)),
    "cholesky, batch": lambda on: L.cholesky(symmetric(9, 16, 16, **on)),
    "cholesky_solve": lambda on: torch.cholesky_solve(matrix(64, 3, **on), matrix(64, 64, **on)),
    "cholesky_solve, batch": lambda on: torch.cholesky_solve(matrix(4, 64, 3, **on), matrix(4, 64, 64, **on)),
    "cholesky_inverse": lambda on: torch.cholesky_inverse(matrix(64, 64, **on)),
    "solve_triangular": lambda on: L.solve_triangular(matrix(64, 64, **on), matrix(64, 3, **on), upper=True),
    "solve": lambda on: L.solve(matrix(64, 64, **on), matrix(64, 3, **on)),
    "inv": lambda on: L.inv(matrix(64, 64, **on)),
    "inv, batch": lambda on: L.inv(matrix(3, 600, 600, **on)),
    "lu": lambda on: L.lu(matrix(64, 32, **on)),
    "lu_solve": lambda on: L.lu_solve(*L.lu_factor(matrix(5, 64, 64, **on)), matrix(5, 64, 3, **on)),
    "ldl_solve": lambda on: L.ldl_solve(*L.ldl_factor(symmetric(32, 32, **on)), matrix(32, 2, **on)),
    "slogdet": lambda on: L.slogdet(matrix(7, 64, 64, **on)),
    "logdet": lambda on: torch.logdet(symmetric(64, 64, **on)),
    "lstsq": lambda on: L.lstsq(matrix(64, 32, **on), matrix(64, 3, **on)).solution,
    "lstsq, batch": lambda on: L.lstsq(matrix(5, 64, 32, **on), matrix(5, 64, 3, **on)).solution,
    "matrix_exp": lambda on: L.matrix_exp(matrix(4, 32, 32, **on)),
    "matrix_rank": lambda on: L.matrix_rank(matrix(64, 64, **on)),
    "matrix_norm": lambda on: L.matrix_norm(matrix(32, 32, **on), "nuc"),
}

def form(results):
    results = [results] if isinstance(results, torch.Tensor) else results
    return [[list(result.shape), str(result.dtype)] for result in results]
"""


def test_results_have_the_shapes_and_types_that_the_host_gives_them(tmp_path):
    done = simulate(
        MATRICES + WORK + """
wrong = {}
for dtype in (torch.float32, torch.float64):
    for name, work in WORK.items():
        there, here = (form(work({"device": device, "dtype": dtype})) for device in ("cuda", "cpu"))
        if there != here:
            wrong[name] = [there, here]
torch.cuda.synchronize()
print(json.dumps([wrong, len(WORK)]))
""",
        tmp_path,
    )
    assert done.answer() == [{}, 36]
    assert "not simulated" not in done.stderr


def test_gradients_pass_through(tmp_path):
    done = simulate(
        MATRICES + """
def total(results):
    results = [results] if isinstance(results, torch.Tensor) else results
    return sum(result.abs().sum() for result in results if not result.dtype == torch.int32)

work = (
    lambda a: L.eigh(a @ a.mT), lambda a: L.svd(a, full_matrices=False), L.qr, L.eig,
    lambda a: L.cholesky(a @ a.mT), L.inv, L.pinv, torch.logdet, L.slogdet, lambda a: L.solve(a, a),
    lambda a: L.lstsq(a, a).solution, L.lu_factor, L.matrix_exp, torch.cholesky_inverse,
    lambda a: torch.cholesky_solve(a, a), lambda a: L.solve_triangular(a, a, upper=True),
    lambda a: torch.svd_lowrank(a, q=4),
)
passed = 0
for shape in ((48, 48), (3, 32, 32)):
    for each in work:
        a = matrix(*shape).requires_grad_()
        total(each(a)).backward()
        passed += a.grad.shape == a.shape
torch.cuda.synchronize()
print(passed / len(work))
""",
        tmp_path,
    )
    assert done.answer() == 2


def test_a_factorisation_succeeds_and_exchanges_no_rows(tmp_path):
    """Though nothing is computed: a program that looks goes on, and what it saw counts as no value read."""
    done = simulate(
        MATRICES + """
a = matrix(2, 5, 5)
factor, failed = L.cholesky_ex(matrix(3, 64, 64))
L.cholesky(a), L.inv(a), L.solve(a, a), L.lu_factor(a), L.eigh(a), L.svd(a), L.qr(a)
seen = [failed.tolist(), L.inv_ex(a).info.tolist(), L.ldl_factor_ex(a).info.tolist(), reads()]
factors, pivots, failed = L.lu_factor_ex(matrix(2, 5, 4))
out = (torch.empty_like(factors), torch.full_like(pivots, 9), torch.full_like(failed, 9))
L.lu_factor_ex(matrix(2, 5, 4), out=out)
print(json.dumps(seen + [pivots.tolist(), out[1].tolist(), out[2].tolist()]))
""",
        tmp_path,
    )
    in_place = [[1, 2, 3, 4]] * 2
    assert done.answer() == [[0, 0, 0], [0, 0], [0, 0], 0, in_place, in_place, [0, 0]]


# ms; sources: Note [Time of factorisations] in dryrun/core/factorisation.cpp
PUBLISHED = {
    "L.cholesky_ex(matrix(512, 512))": 0.38,
    "L.cholesky_ex(matrix(2048, 2048))": 1.95,
    "L.cholesky_ex(matrix(64, 2048, 2048))": 22.2,
    "L.qr(matrix(256, 256), mode='r')": 0.61,
    "L.qr(matrix(1024, 1024), mode='r')": 3.8,
    "L.qr(matrix(4096, 4096), mode='r')": 24.2,
    "L.qr(matrix(512, 512))": 1.84,
    "L.eigh(matrix(500, 100, 100))": 914,
    "L.svd(matrix(32, 32))": 0.59,
}


def test_times_are_near_what_others_measured(tmp_path):
    done = simulate(
        MATRICES
        + f"""
times = {{}}
for text in {list(PUBLISHED)}:
    work = eval("lambda: " + text)
    work()
    times[text] = milliseconds(work)
print(json.dumps(times))
""",
        tmp_path,
        device="h100-80g",
    )
    ratios = {text: time / PUBLISHED[text] for text, time in done.answer().items()}
    assert {text: ratio for text, ratio in ratios.items() if not 0.45 < ratio < 2.2} == {}
    assert len(ratios) == len(PUBLISHED)


def test_a_batch_that_one_call_takes_waits_for_its_columns_once(tmp_path):
    done = simulate(
        MATRICES + """
one, many = symmetric(1, 16, 16), symmetric(50, 16, 16)
L.cholesky_ex(one), L.cholesky_ex(many), L.eigh(one), L.eigh(many)
print(json.dumps([milliseconds(lambda: each(a)) for each in (L.cholesky_ex, L.eigh) for a in (one, many)]))
""",
        tmp_path,
    )
    cholesky, choleskys, eigh, eighs = done.answer()
    assert choleskys < 2 * cholesky
    assert eighs < 4 * eigh


def test_divide_and_conquer_works_in_three_more_matrices(tmp_path):
    done = simulate(
        MATRICES + ASKED_FOR + """
a = matrix(2048, 2048)
L.eigh(a)
print(json.dumps(asked_for(lambda: L.eigh(a))[1]))
""",
        tmp_path,
    )
    whole = 2048 * 2048 * 4
    assert any(3 * whole <= size < 3.1 * whole for size in done.answer())


def test_an_optimizer_of_eigenbases_trains(tmp_path):
    """As SOAP does: eigenvectors at first, then a power iteration and QR; Shampoo's root of the inverse."""
    done = simulate(
        MATRICES + """
weight = torch.nn.Parameter(matrix(96, 64))
left, right, basis = torch.zeros(96, 96, device="cuda"), torch.zeros(64, 64, device="cuda"), None
for step in range(4):
    (matrix(32, 96) @ weight).square().mean().backward()
    gradient = weight.grad
    left.lerp_(gradient @ gradient.T, 0.1)
    right.lerp_(gradient.T @ gradient, 0.1)
    basis = L.eigh(left).eigenvectors if basis is None else L.qr(left @ basis).Q
    values, vectors = L.eigh(right)
    root = vectors @ torch.diag(values.clamp_min(1e-6).rsqrt()) @ vectors.T
    with torch.no_grad():
        weight.sub_(basis @ (basis.T @ gradient) @ root, alpha=0.1)
    weight.grad = None
L.svd(weight.detach(), full_matrices=False)
torch.cuda.synchronize()
print(json.dumps([list(basis.shape), list(root.shape), reads()]))
""",
        tmp_path,
    )
    assert done.answer() == [[96, 96], [64, 64], 0]


def test_a_captured_factorisation_succeeds_at_each_launch(tmp_path):
    done = simulate(
        MATRICES + """
a = matrix(64, 64)
L.cholesky_ex(a)
graph = torch.cuda.CUDAGraph()
with torch.cuda.graph(graph):
    factor, failed = L.cholesky_ex(a)
seen = []
for launch in range(2):
    failed.fill_(7)
    graph.replay()
    seen.append(failed.item())
print(json.dumps(seen + [milliseconds(graph.replay) > 0.04]))
""",
        tmp_path,
    )
    assert done.answer() == [0, 0, True]


def test_compiled_programs_factorise_too(tmp_path):
    done = simulate(
        MATRICES + """
def loss(a):
    return L.qr(a).Q.sum() + L.eigh(a @ a.mT).eigenvalues.sum() + L.solve(a, a).sum()

a = matrix(32, 32).requires_grad_()
torch.compile(loss, backend="aot_eager")(a).backward()
print(json.dumps(list(a.grad.shape)))
""",
        tmp_path,
    )
    assert done.answer() == [32, 32]


def test_what_is_not_known_agrees_with_anything(tmp_path):
    """So checks of a result pass, as those within eig's backward; what is known is compared, whatever was there before."""
    done = simulate(
        MATRICES + """
a, known = matrix(8, 8) @ matrix(8, 8), torch.arange(4.0, device="cuda")
yes = [torch.ones((), dtype=torch.bool, device="cuda") for _ in range(8)]
no = torch.zeros((), dtype=torch.bool, device="cuda")
del yes[1:]  # blocks that hold what kernels did not write
print(json.dumps([
    torch.allclose(a @ L.inv(a), torch.eye(8, device="cuda")), torch.equal(a, a + 1), torch.equal(a, a[:4]),
    torch.allclose(known, known + 1), torch.allclose(known, known + 0),
    torch.equal(known, known + 1), torch.equal(known, known + 0), torch.equal(no, yes[0]),
]))
""",
        tmp_path,
    )
    assert done.answer() == [True, True, False, False, True, False, True, False]
