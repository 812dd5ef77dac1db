"""Programs that check their values go on where no kernel computes them, and end where what is known is wrong."""

from __future__ import annotations

import pytest
from dryrun_run import simulate

# Each is made of values that are not known, and draws and judges a sample.
DISTRIBUTIONS = {
    "categorical": "Categorical(probs)",
    "bernoulli": "Bernoulli(probs)",
    "beta": "Beta(probs, probs)",
    "dirichlet": "Dirichlet(probs)",
    "gaussian": "MultivariateNormal(x, covariance_matrix=x.T @ x)",
    "one_hot": "OneHotCategoricalStraightThrough(probs)",
    "poisson": "Poisson(probs)",
    "uniform": "Uniform(x - 1, x + 1)",
}
PROGRAM = """
from torch import distributions
x = torch.randn(8, 6, device="cuda", requires_grad=True)
probs = x.softmax(-1)
answers = {}
def passes(name, check):
    try:
        answers[name] = check() is not False
    except ValueError as error:
        answers[name] = str(error)
def judge(made):
    made.log_prob(made.sample())
"""
BOXES = """
b = torch.rand(7, 4, device="cuda")
corners = torch.stack([b[:, 0] - b[:, 2], b[:, 1] - b[:, 3], b[:, 0] + b[:, 2], b[:, 1] + b[:, 3]], -1)
known = torch.tensor([[2.0, 2.0, 1.0, 3.0]], device="cuda")
passes("boxes", lambda: bool((corners[:, 2:] >= corners[:, :2]).all()))
passes("wrong_boxes", lambda: bool((known[:, 2:] >= known[:, :2]).all()))
answers["share"] = len((torch.rand(1000, device="cuda") < torch.full((1000,), 0.5, device="cuda")).nonzero())
passes("wrong_scale", lambda: distributions.Normal(x, torch.full((8, 6), -1.0, device="cuda")))
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    lines = [
        f"passes({name!r}, lambda: judge(distributions.{made}))" for name, made in DISTRIBUTIONS.items()
    ]
    return simulate(PROGRAM + "\n".join(lines) + BOXES, tmp_path_factory.mktemp("checks")).answer()


@pytest.mark.parametrize("name", [*DISTRIBUTIONS, "boxes"])
def test_checks_of_unknown_values_pass(answers, name):
    assert answers[name] is True


def test_what_indices_name_of_floating_point_numbers_is_no_integer_that_is_missing(tmp_path):
    done = simulate(
        """
x = torch.empty(64, 512, device="cuda")
at = torch.zeros(4096, 1, dtype=torch.int64, device="cuda").expand(-1, 512)
x.scatter_add_(0, at, torch.gather(x, 0, at))
before = counter("large_integers")
total = at.sum()
print(json.dumps([before, counter("large_integers") > before]))
""",
        tmp_path,
        EBBTIDE_DRYRUN_COMPUTE_LIMIT="1MiB",
    )
    assert done.answer() == [0, True]


def test_checks_of_known_values_are_their_own(answers):
    assert answers["wrong_boxes"] is False
    assert answers["wrong_scale"].startswith("Expected parameter scale")
    assert answers["share"] == 500  # what is drawn is compared as before
