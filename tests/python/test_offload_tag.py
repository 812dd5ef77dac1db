"""ebbtide.tag: what a block saves goes to host memory, and comes back as it was."""

from __future__ import annotations

import contextlib

import pytest

torch = pytest.importorskip("torch")

import ebbtide  # noqa: E402
from ebbtide import EbbtideError  # noqa: E402

pytestmark = pytest.mark.usefixtures("native")


def counted(name):
    (tag,) = [tag for tag in ebbtide.stats().offload.tags if tag.name == name]
    return tag


def gradients(function, *leaves):
    for leaf in leaves:
        leaf.grad = None
    function().backward()
    return [leaf.grad.clone() for leaf in leaves]


def both(name, function, *leaves):
    """The gradients of a function of a block, without a tag and with one."""
    plain = gradients(lambda: function(contextlib.nullcontext), *leaves)
    tagged = gradients(lambda: function(lambda: ebbtide.tag(name)), *leaves)
    assert all(map(torch.equal, plain, tagged))


def leaf(*shape):
    return torch.randn(*shape).requires_grad_()


def test_a_tag_swaps_what_a_block_saves_and_never_a_parameter():
    weight, x = torch.nn.Parameter(torch.randn(64, 64)), torch.randn(64, 64)

    def function(block):
        with block():
            y = torch.nn.functional.linear(x, weight).exp()
            z = (y @ weight.t()).sin()
        with block():
            return z.cos().sum()

    both("linear", function, weight)
    # The inputs of linear, @, sin and cos; exp's result is the input of @.
    assert counted("linear").blocks == 2 and counted("linear").saved_bytes == 4 * x.nbytes


def test_trl_6241_recycled_memory_is_not_taken_for_what_was_there():
    """What a block has dropped is freed, and its address used again by what must be saved."""
    x = leaf(64, 64)

    def function(block):
        total = torch.zeros(())
        for outer in range(3):
            with block():
                for number in range(8):
                    y = (x * (number + outer)).exp().sin().sum()
                    if number % 2:
                        total = total + y
        return total

    both("recycled", function, x)


def test_views_and_strided_tensors_come_back_as_they_were():
    x = leaf(64, 96)

    def function(block):
        with block():
            a, b = x.exp().t().chunk(2)
            return (a.sin() * b[:, ::2].repeat(1, 2).cos()).sum()

    both("views", function, x)


def test_a_tag_takes_a_name_and_nothing_else():
    for wrong in ("", None, 3):
        with pytest.raises(EbbtideError, match="a name"), ebbtide.tag(wrong):
            pass


def test_a_block_that_raises_swaps_nothing_and_lets_the_error_through():
    x = leaf(64, 64)
    with pytest.raises(ZeroDivisionError), ebbtide.tag("raises"):
        y = x.exp().sin().sum()
        1 / 0
    y.backward()
    expected = (x.exp().cos() * x.exp()).detach()
    assert torch.allclose(x.grad, expected)

    def function(block):
        with block():
            return x.exp().sin().sum()

    both("does not", function, x)
    assert [tag.name for tag in ebbtide.stats().offload.tags if tag.name in ("raises", "does not")] == ["does not"]


def test_an_abandoned_graph_leaves_nothing_on_the_host():
    def live():
        return sum(host.live_bytes for host in ebbtide.stats().offload.tags_host)

    x = leaf(64, 64)
    with ebbtide.tag("first"):
        kept = x.sin().sum()
    before = live()
    with ebbtide.tag("abandoned"):
        y = x.exp().sin().sum()
    assert live() > before
    del y
    assert live() == before
    kept.backward()
    assert live() <= before
