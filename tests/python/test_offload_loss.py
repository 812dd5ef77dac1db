"""Loss over pieces, on plain tensors: sums, ragged tails, gradients, precision."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402
from ebbtide._offload._gradient_sums import GradientSums  # noqa: E402
from ebbtide._offload._loss import Targets, TokenLoss  # noqa: E402
from ebbtide._offload._piece_size import head_bytes_per_token, head_piece  # noqa: E402
from ebbtide._offload._piecewise_loss import PieceOfHead, PiecewiseLoss  # noqa: E402

WORDS, WIDTH = 37, 16
LENGTHS = [1, 63, 64, 65, 1000, 4097]


def linear(rows, parameters):
    return F.linear(rows, *parameters)


def make(tokens, dtype=torch.float64, seed=0):
    draw = torch.Generator().manual_seed(seed)
    rows = torch.randn(tokens, WIDTH, generator=draw, dtype=torch.float64).to(dtype)
    weight = (torch.randn(WORDS, WIDTH, generator=draw, dtype=torch.float64) / 4).to(dtype)
    labels = torch.randint(0, WORDS, (tokens,), generator=draw)
    labels[::7] = -100
    return rows.requires_grad_(), labels, weight.requires_grad_()


def piecewise(rows, labels, weight, piece, loss=None, scale=1.0):
    head = PieceOfHead(linear, loss or TokenLoss(), piece)
    total = PiecewiseLoss.apply(head, rows, labels, weight)
    return (total, *torch.autograd.grad(total * scale, (rows, weight)))


def whole(rows, labels, weight, loss=None, scale=1.0):
    total = (loss or TokenLoss())(F.linear(rows, weight), labels)
    return (total, *torch.autograd.grad(total * scale, (rows, weight)))


def error(value, reference):
    return ((value.double() - reference.double()).norm() / reference.double().norm()).item()


@pytest.mark.parametrize("tokens", LENGTHS)
@pytest.mark.parametrize("piece", [1, 16, 64])
def test_pieces_are_the_whole_in_float64(tokens, piece):
    if tokens / piece > 1000:
        pytest.skip("a piece of one token is checked at shorter lengths")
    inputs = make(tokens)
    inputs[1][-1] = 3  # at least one token counts
    for value, reference in zip(piecewise(*inputs, piece), whole(*inputs), strict=True):
        assert error(value, reference) < 1e-12


def test_mst_drops_the_tail_tokens():
    """MsT cuts a sequence into 64 equal pieces and forgets the remainder; its divisor counts it."""
    rows, labels, weight = make(65)
    labels[:-1] = -100  # only the last token has a label, and it is the tail
    labels[-1] = 5
    loss, d_rows, _ = piecewise(rows, labels, weight, piece=64)
    assert loss.item() > 0 and d_rows[-1].abs().sum() > 0
    assert not d_rows[:-1].any()


def test_mst_doubles_the_gradient_of_the_head():
    """MsT writes into weight.grad and then returns it, so that autograd adds it to itself."""
    rows, labels, weight = make(50)
    reference = whole(rows, labels, weight)[2]
    head = PieceOfHead(linear, TokenLoss(), 16)
    for times in (1, 2):  # also with a gradient that is there already
        PiecewiseLoss.apply(head, rows, labels, weight).backward()
        assert error(weight.grad, times * reference) < 1e-12


def test_liger_makes_gradients_in_forward_even_where_nobody_wants_them():
    rows, labels, weight = make(50)
    head = PieceOfHead(linear, TokenLoss(), 16)
    with torch.no_grad():
        loss = PiecewiseLoss.apply(head, rows, labels, weight)
    assert not loss.requires_grad and rows.grad is None and weight.grad is None
    assert error(loss, whole(rows, labels, weight)[0]) < 1e-12


@pytest.mark.parametrize("scale", [0.0, 0.125, 1024.0])
def test_gradients_scale_with_the_upstream_gradient(scale):
    inputs = make(50)
    for value, reference in zip(
        piecewise(*inputs, 16, scale=scale), whole(*inputs, scale=scale), strict=True
    ):
        assert torch.allclose(value, reference, rtol=1e-12, atol=0)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("z_loss", [0.0, 1e-2])
def test_smoothing_and_z_loss_are_those_of_the_whole(smoothing, z_loss):
    inputs = make(65)
    loss = TokenLoss(label_smoothing=smoothing, z_loss=z_loss)
    for value, reference in zip(
        piecewise(*inputs, 16, loss), whole(*inputs, loss), strict=True
    ):
        assert error(value, reference) < 1e-12
    rows, labels, weight = inputs
    logits = F.linear(rows, weight)
    squares = logits.logsumexp(-1)[labels != -100].square().sum()
    by_hand = z_loss * squares + F.cross_entropy(
        logits, labels, reduction="sum", label_smoothing=smoothing
    )
    assert error(loss(logits, labels), by_hand) < 1e-12


@pytest.mark.parametrize("tokens", LENGTHS)
def test_bfloat16_is_no_worse_than_one_and_a_half_times_the_whole(tokens):
    """StreamBP's rule, against float32 of the same values."""
    inputs = make(tokens, torch.bfloat16)
    inputs[1][-1] = 3
    exact = whole(inputs[0].float(), inputs[1], inputs[2].float())
    ours, plain = piecewise(*inputs, 16), whole(*inputs)
    for value, usual, reference in zip(ours, plain, exact, strict=True):
        assert error(value, reference) <= 1.5 * error(usual, reference) + 1e-7


def test_weight_gradients_are_summed_in_float32():
    """256 pieces of 1 and 256 of 2**-9: bfloat16 partial sums would lose every one of the latter."""
    parameter = torch.zeros(1, dtype=torch.bfloat16)
    sums = GradientSums([parameter], 512)
    for value in [1.0] * 256 + [2.0**-9] * 512:
        sums.add([torch.tensor([value], dtype=torch.bfloat16)])
    (total,) = sums.take()
    assert total.dtype == torch.bfloat16 and total.item() == torch.tensor(257.0).bfloat16().item()


def test_a_hook_on_the_head_sees_one_gradient():
    """Liger's tiled MLP runs a backward per tile: DDP then complains, or reduces half a gradient."""
    rows, labels, weight = make(50)
    seen, accumulated = [], []
    weight.register_hook(lambda gradient: seen.append(gradient) or gradient * 2)
    weight.register_post_accumulate_grad_hook(lambda leaf: accumulated.append(leaf.grad.clone()))
    reference = whole(*make(50))[2]
    PiecewiseLoss.apply(PieceOfHead(linear, TokenLoss(), 8), rows, labels, weight).backward()
    assert len(seen) == len(accumulated) == 1
    assert error(seen[0], reference) < 1e-12 and error(weight.grad, 2 * reference) < 1e-12


def test_a_frozen_head_or_frozen_rows_get_no_gradient():
    rows, labels, weight = make(50)
    head = PieceOfHead(linear, TokenLoss(), 16)
    PiecewiseLoss.apply(head, rows, labels, weight.detach()).backward()
    assert error(rows.grad, whole(rows, labels, weight)[1]) < 1e-12
    PiecewiseLoss.apply(head, rows.detach(), labels, weight).backward()
    assert error(weight.grad, whole(rows, labels, weight)[2]) < 1e-12


def test_retained_graphs_give_the_same_gradient_again_and_twice_differentiating_is_refused():
    rows, labels, weight = make(50)
    loss = PiecewiseLoss.apply(PieceOfHead(linear, TokenLoss(), 16), rows, labels, weight)
    first = torch.autograd.grad(loss, weight, retain_graph=True)[0]
    assert torch.equal(first, torch.autograd.grad(loss, weight, retain_graph=True)[0])
    with pytest.raises(RuntimeError, match="create_graph=True"):
        torch.autograd.grad(loss, weight, create_graph=True)


def test_random_numbers_in_the_head_are_drawn_again_in_backward():
    def dropping(rows, parameters):
        return F.linear(F.dropout(rows, 0.5), *parameters)

    rows, labels, weight = make(48)
    torch.manual_seed(3)
    loss = PiecewiseLoss.apply(PieceOfHead(dropping, TokenLoss(), 16), rows, labels, weight)
    after = torch.rand(1)
    loss.backward()
    torch.manual_seed(3)
    pieces = [dropping(rows[i : i + 16], [weight]) for i in (0, 16, 32)]
    reference = sum(TokenLoss()(p, labels[i : i + 16]) for i, p in zip((0, 16, 32), pieces, strict=True))
    assert torch.equal(after, torch.rand(1))
    assert error(rows.grad, torch.autograd.grad(reference, rows)[0]) < 1e-12


def test_no_more_logits_are_alive_than_those_of_one_piece():
    class Largest(torch.utils._python_dispatch.TorchDispatchMode):
        rows = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor) and result.shape[-1:] == (WORDS,):
                self.rows = max(self.rows, result.numel() // WORDS)
            return result

    rows, labels, weight = make(1000)
    with Largest() as seen:
        PiecewiseLoss.apply(PieceOfHead(linear, TokenLoss(), 64), rows, labels, weight).backward()
    assert seen.rows == 64


def test_targets_are_shifted_as_transformers_does():
    labels = torch.tensor([[1, 2, 3], [4, -100, 6]])
    targets = Targets.of(labels, None, None, -100, labels.device)
    assert targets.labels.tolist() == [2, 3, -100, -100, 6, -100]
    assert int(targets.divisor) == 3
    given = Targets.of(labels, labels, torch.tensor(12), -100, labels.device)
    assert given.labels.tolist() == labels.flatten().tolist() and int(given.divisor) == 12


def test_a_piece_weighs_no_more_than_the_gradient_of_the_head():
    words, width = 128256, 4096
    tokens = head_piece(words, width, 2, torch.device("cpu"), None)
    share = max(4 * words * width, torch.tensor(0).element_size())
    from ebbtide._offload._options import host_memory

    assert tokens % 256 == 0
    assert tokens * head_bytes_per_token(words, 2) <= max(share, host_memory() // 64)
    assert head_piece(words, width, 2, torch.device("cpu"), 100) == 100
    assert head_piece(words, width, 2, torch.device("cpu"), 10**9) == tokens


def test_the_last_piece_is_not_computed_again():
    rows, labels, weight = make(50)
    sizes = []

    def counted(rows, parameters):
        sizes.append(len(rows))
        return linear(rows, parameters)

    loss = PiecewiseLoss.apply(PieceOfHead(counted, TokenLoss(), 16), rows, labels, weight)
    assert sizes == [16, 16, 16, 2]
    torch.autograd.grad(loss, weight, retain_graph=True)
    assert sizes[4:] == [16, 16, 16]
    torch.autograd.grad(loss, weight)  # its graph is used up
    assert sizes[7:] == [2, 16, 16, 16]


def test_hooks_for_saved_tensors_see_no_logits():
    rows, labels, weight = make(50)
    seen = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: seen.append(tensor.shape) or tensor, lambda tensor: tensor):
        loss = PiecewiseLoss.apply(PieceOfHead(linear, TokenLoss(), 64), rows, labels, weight)
    loss.backward()
    assert seen == [rows.shape, labels.shape, weight.shape]
    assert error(weight.grad, whole(*make(50))[2]) < 1e-12
