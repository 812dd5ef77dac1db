"""One attention on torch's fused operators: heads in groups, gradients in the memory of q, k, v, the same bits."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed here")
pytest.importorskip("transformers", reason="transformers is not installed here")

from attention_stand_ins import CUDNN, FLASH, operators_on_cpu
from ebbtide._offload import _attention_groups
from ebbtide._offload._attention_call import AttentionCall, FusedCall
from ebbtide._offload._attention_choice import fused_for
from ebbtide._offload._attention_fused import FusedAttention
from ebbtide._offload._attention_groups import calls_of, head_groups
from ebbtide._offload._attention_kernel import CudnnKernel, FlashKernel, FusedResult
from ebbtide._offload._store import KeepStore
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers.integrations.sdpa_attention import sdpa_attention_forward

ALGEBRA = 1e-10
KERNELS = {FLASH: FlashKernel(), CUDNN: CudnnKernel()}


@pytest.fixture
def operators():
    with operators_on_cpu() as calls:
        yield calls


@pytest.mark.parametrize(
    ("shape", "kv_heads", "calls"),
    [
        ((1, 32, 8192, 128), 8, 1),  # all heads at once
        ((16, 16, 1025, 80), 16, 1),  # and not all but one
        ((1, 32, 65536, 128), 8, 8),
        ((1, 32, 65537, 128), 8, 32),  # three heads fit, four share one of k: single ones
        ((1, 32, 20000, 128), 8, 4),  # 8 heads are wanted, of the 13 that there is work for
        ((1, 32, 1 << 20, 128), 8, 32),
        ((1, 12, 1 << 20, 128), 12, 12),
        ((2, 28, 65536, 128), 4, 28),  # 7 heads of q for one of k
        ((1, 71, 1 << 20, 64), 1, 71),
    ],
)
def test_head_groups_cover_every_head_once(shape, kv_heads, calls):
    share = shape[1] // kv_heads
    q_heads, k_heads, found = [], [], 0
    for of_q, of_k in head_groups(shape, kv_heads):
        found += len(of_q)
        of_group = [head for heads in of_q for head in range(heads.start, heads.stop)]
        served = list(range(of_k.start, of_k.stop))
        assert sorted({head // share for head in of_group}) == served
        q_heads += of_group
        k_heads += served
    assert q_heads == list(range(shape[1]))
    assert k_heads == list(range(kv_heads))
    assert found == calls == calls_of(shape[0], shape[2], (shape[1], kv_heads))


def test_lengths_between_two_powers_of_two_have_the_same_calls():
    for heads in ((32, 8), (28, 4), (12, 12), None):
        for tokens in (20000, 24002, 32768):
            assert calls_of(1, tokens, heads) == calls_of(2, tokens // 2, heads) == calls_of(1, 32768, heads)


@pytest.mark.parametrize("tokens", [8192, 20000, 30000, 65536, 65537, 131072, 1 << 20])
@pytest.mark.parametrize(("heads", "kv_heads"), [(32, 8), (28, 4), (71, 1), (12, 12)])
def test_a_shared_head_of_k_gets_one_sum_of_all_or_one_of_single_heads(tokens, heads, kv_heads):
    share, sizes = heads // kv_heads, set()
    for of_q, of_k in head_groups((1, heads, tokens, 128), kv_heads):
        calls = [group.stop - group.start for group in of_q]
        assert calls in ([share * (of_k.stop - of_k.start)], [1] * share)
        sizes |= set(calls)
    assert len(sizes) <= 2  # each is a plan of cuDNN's


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("is_causal", [True, False])
def test_gradients_lie_in_the_memory_of_q_k_v(operators, name, is_causal, monkeypatch):
    monkeypatch.setattr(_attention_groups, "_LEAST_WORK", 40)
    q, k, v = (torch.randn(2, heads, 20, 8, dtype=torch.float64) for heads in (4, 2, 2))
    leaves = [part.clone().requires_grad_() for part in (q, k, v)]
    own = torch.nn.functional.scaled_dot_product_attention(
        *leaves, is_causal=is_causal, enable_gqa=True
    )
    attention = FusedAttention(FusedCall(is_causal, None, True), KERNELS[name])
    out, _ = attention.forward((q, k, v), KeepStore())
    torch.testing.assert_close(out, own.transpose(1, 2), rtol=ALGEBRA, atol=ALGEBRA)
    dout = torch.randn_like(out)
    expected = torch.autograd.grad(own, leaves, dout.transpose(1, 2))
    attention.put_back((q, k, v))
    found, _ = attention.backward(dout, [], out)
    assert [part.data_ptr() for part in found] == [part.data_ptr() for part in (q, k, v)]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=ALGEBRA, atol=ALGEBRA)


def test_groups_are_alike():
    sizes = [of_k.stop - of_k.start for _, of_k in head_groups((16, 34, 1025, 80), 34)]  # 8 are wanted
    assert sizes == [7, 7, 7, 7, 6]


def test_one_call_for_all_heads_leaves_q_k_v_alone(operators):
    q, k, v = (torch.randn(2, heads, 20, 8, dtype=torch.float64) for heads in (4, 2, 2))
    leaves = [part.clone().requires_grad_() for part in (q, k, v)]
    own = torch.nn.functional.scaled_dot_product_attention(*leaves, is_causal=True, enable_gqa=True)
    attention = FusedAttention(FusedCall(True, None, True), KERNELS[FLASH])
    out, _ = attention.forward((q, k, v), KeepStore())
    dout = torch.randn_like(out)
    before = [part.clone() for part in (q, k, v)]
    attention.put_back((q, k, v))
    assert not attention.writes_over((q, k, v))
    found, _ = attention.backward(dout, [], out)
    assert all(map(torch.equal, (q, k, v), before))
    for one, other in zip(found, torch.autograd.grad(own, leaves, dout.transpose(1, 2)), strict=True):
        torch.testing.assert_close(one, other, rtol=ALGEBRA, atol=ALGEBRA)


def test_shared_heads_of_k_are_summed_in_float32(monkeypatch):
    # 256 + 1 four times: in bfloat16 each 1 would be lost.
    monkeypatch.setattr(_attention_groups, "_LEAST_WORK", 1)

    class Constant:
        def __init__(self):
            self.values = iter([256.0, 1.0, 1.0, 1.0, 1.0])

        def forward(self, call, q, k, v):
            empty = torch.empty(0)
            return FusedResult(q.clone(), torch.zeros(q.shape[:3]), empty, empty)

        def backward(self, call, dout, q, k, v, result):
            value = next(self.values)
            return torch.zeros_like(q), torch.full_like(k, value), torch.full_like(v, value)

    q = torch.zeros(1, 5, 4, 8, dtype=torch.bfloat16)
    k, v = torch.zeros(2, 1, 1, 4, 8, dtype=torch.bfloat16)
    attention = FusedAttention(FusedCall(True, None, True), Constant())
    out, _ = attention.forward((q, k, v), KeepStore())
    attention.put_back((q, k, v))
    (_, dk, dv), _ = attention.backward(torch.zeros_like(out), [], out)
    assert dk.unique().tolist() == dv.unique().tolist() == [260.0]


@pytest.mark.parametrize("layout", ["tokens first", "heads first", "one of each"])
@pytest.mark.parametrize("kv_heads", [2, 4])
def test_cudnns_backward_is_called_as_autograd_calls_it(operators, layout, kv_heads):
    """Note [Layouts that cuDNN's plans expect]: the strides of all, too."""
    q, k, v = (torch.randn(2, 20, heads, 8, dtype=torch.float64).transpose(1, 2) for heads in (4, kv_heads, kv_heads))
    if layout != "tokens first":
        q = q.contiguous()
    if layout == "heads first":
        k, v = k.contiguous(), v.contiguous()
    q, k, v = (part.requires_grad_() for part in (q, k, v))
    own = torch.ops.aten._scaled_dot_product_cudnn_attention(q, k, v, None, True, 0.0, True, False, scale=0.5)[0]
    dout = torch.randn(2, 20, 4, 8, dtype=torch.float64)
    own.transpose(1, 2).contiguous().backward(dout)
    attention = FusedAttention(FusedCall(True, 0.5, kv_heads < 4), CudnnKernel())
    with torch.no_grad():
        parts = tuple(part.detach().clone() for part in (q, k, v))
        out, _ = attention.forward(parts, KeepStore())
        attention.put_back(parts)
        found, _ = attention.backward(dout, [], out)
    by_autograd, by_us = operators.arguments
    assert len(by_autograd) == len(by_us)
    for one, other in zip(by_us, by_autograd, strict=True):
        if isinstance(one, torch.Tensor):
            assert (one.shape, one.stride(), one.dtype) == (other.shape, other.stride(), other.dtype)
        else:
            assert one == other
    for gradient, leaf in zip(found, (q, k, v), strict=True):
        assert torch.equal(gradient, leaf.grad)


@pytest.mark.gpu
@pytest.mark.parametrize("work", [1 << 18, 1])
@pytest.mark.parametrize("backend", ["FLASH_ATTENTION", "CUDNN_ATTENTION"])
def test_on_a_gpu_attention_has_the_bits_of_the_models_own(monkeypatch, backend, work):
    """All but the gradient of q, which the kernels add up in any order."""
    monkeypatch.setattr(_attention_groups, "_LEAST_WORK", work)
    leaves = [
        torch.randn(2, 1000, heads, 64, device="cuda", dtype=torch.bfloat16).transpose(1, 2).requires_grad_()
        for heads in (8, 2, 2)
    ]
    dout = torch.randn(2, 1000, 8, 64, device="cuda", dtype=torch.bfloat16)
    parts = tuple(leaf.detach().clone() for leaf in leaves)
    with sdpa_kernel(SDPBackend.__members__[backend]):
        own = torch.nn.functional.scaled_dot_product_attention(*leaves, is_causal=True, enable_gqa=True)
        own.transpose(1, 2).contiguous().backward(dout)
        module = torch.nn.Identity()
        module.num_key_value_groups = 4
        attention = FusedAttention(*fused_for(AttentionCall(sdpa_attention_forward, module, (None,), {}), parts))
    with torch.no_grad():
        out, _ = attention.forward(parts, KeepStore())
        attention.put_back(parts)
        (_, dk, dv), _ = attention.backward(dout, [], out)
    pairs = {"out": (out, own.transpose(1, 2)), "dk": (dk, leaves[1].grad), "dv": (dv, leaves[2].grad)}
    assert {
        name: f"differs by up to {(one.float() - other.float()).abs().max().item():g}"
        for name, (one, other) in pairs.items()
        if not torch.equal(one, other)
    } == {}
