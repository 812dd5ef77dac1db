"""Flash attention called directly, a few heads at a time: same numbers as the model's own attention."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed here")
pytest.importorskip("transformers", reason="transformers is not installed here")

import offload_models as om
from ebbtide._offload import _attention, _attention_flash
from ebbtide._offload._attention_call import AttentionCall, FlashCall, fits_flash
from ebbtide._offload._attention_flash import FlashAttention, head_groups
from ebbtide._offload._attention_kernel import CpuKernel, FlashResult
from ebbtide._offload._layer import wrap_layers
from ebbtide._offload._options import Options
from ebbtide._offload._pieces import Policy
from ebbtide._offload._store import KeepStore
from transformers.integrations.sdpa_attention import sdpa_attention_forward

ALGEBRA = 1e-10


@pytest.fixture
def flash_on_cpu(monkeypatch):
    """The flash form takes CPU tensors too, through the operator for them; counts its forwards."""
    used = []

    class Counted(CpuKernel):
        def forward(self, *args):
            used.append(args)
            return super().forward(*args)

    monkeypatch.setattr(_attention, "fits_flash", lambda parts: True)
    monkeypatch.setattr(_attention, "kernel_for", lambda device: Counted())
    return used


def in_pieces(model, ids, policies=None, **changes):
    options = Options(**{"mini_sequence": 16, "keep_last": 0, **changes})
    store = om.CopyStore()
    cuts = wrap_layers(model, options, store, policies)
    try:
        return om.gradients(model, ids)
    finally:
        cuts.undo()
        assert store.live == 0


@pytest.mark.parametrize("work", [1, 100, 250, 1 << 18])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("attention", ["save", "recompute"])
def test_layers_with_flash_attention_are_exact(flash_on_cpu, monkeypatch, work, kv_heads, attention):
    monkeypatch.setattr(_attention_flash, "_LEAST_WORK", work)
    model = om.make("llama", num_key_value_heads=kv_heads)
    ids = om.tokens(50, batch=2)
    expected = om.gradients(model, ids)
    assert om.worst_error(in_pieces(model, ids, attention=attention), expected) <= ALGEBRA
    assert len(flash_on_cpu) == om.LAYERS


@pytest.mark.parametrize("architecture", ["qwen3", "phi3", "granite", "cohere", "gpt2", "gpt_neox"])
def test_other_architectures_take_the_flash_form(flash_on_cpu, architecture):
    model, ids = om.make(architecture), om.tokens(50, batch=2)
    expected = om.gradients(model, ids)
    assert om.worst_error(in_pieces(model, ids), expected) <= ALGEBRA
    assert len(flash_on_cpu) == om.LAYERS


class _Tanh(torch.nn.Linear):
    """Saves its own result, which is the value that attention's backward writes over."""

    def forward(self, x):
        return super().forward(x).tanh()


@pytest.mark.parametrize("piece", [16, 50])
@pytest.mark.parametrize("attention", ["save", "recompute"])
def test_policies_change_no_bit(flash_on_cpu, piece, attention):
    model, ids = om.make("llama", torch.float32), om.tokens(50)
    for layer in om.layers_of(model):
        layer.self_attn.v_proj.__class__ = _Tanh
    expected = om.gradients(model, ids)
    options = {"mini_sequence": piece, "attention": attention}
    found = [in_pieces(model, ids, om.all_of(policy), **options) for policy in Policy]
    om.assert_same_bits(found[1], found[0])
    om.assert_same_bits(found[2], found[0])
    assert om.worst_error(found[0], expected) <= 1e-4


def test_a_mask_a_window_or_dropout_is_left_to_the_models_own_attention(flash_on_cpu):
    mask = torch.ones(2, 50, dtype=torch.long)
    mask[1, 40:] = 0
    for model, inputs in (
        (om.make("llama"), {"attention_mask": mask}),
        (om.make("mistral"), {}),
        (om.make("llama", attention_dropout=0.1), {}),
        (om.make("llama", attn_implementation="eager"), {}),
    ):
        cuts = wrap_layers(model, Options(mini_sequence=16), KeepStore())
        om.gradients(model, om.tokens(50, batch=2), **inputs)
        cuts.undo()
    assert flash_on_cpu == []


@pytest.mark.parametrize(
    ("kwargs", "expected"),
    [
        ({}, FlashCall(True, None)),
        ({"dropout": 0.0, "scaling": 0.25, "sliding_window": None}, FlashCall(True, 0.25)),
        ({"is_causal": False}, FlashCall(False, None)),
        ({"dropout": 0.1}, None),
        ({"position_bias": torch.zeros(1)}, None),
        ({"attention_mask": torch.zeros(1)}, None),
    ],
)
def test_which_calls_the_flash_kernels_answer(kwargs, expected):
    module = torch.nn.Identity()
    assert AttentionCall(sdpa_attention_forward, module, (None,), kwargs).as_flash(50) == expected


def test_what_else_is_no_call_for_the_flash_kernels():
    module = torch.nn.Identity()
    mask = torch.zeros(1, 1, 50, 50)
    assert AttentionCall(sdpa_attention_forward, module, (mask,), {}).as_flash(50) is None
    assert AttentionCall(lambda *_: None, module, (None,), {}).as_flash(50) is None
    module.is_causal = False
    assert AttentionCall(sdpa_attention_forward, module, (None,), {}).as_flash(50).is_causal is False
    # A single token attends to itself: transformers says so without is_causal.
    assert AttentionCall(sdpa_attention_forward, module, (None,), {}).as_flash(1).is_causal is False


def test_cpu_tensors_do_not_fit():
    q = torch.zeros(1, 4, 8, 16, dtype=torch.bfloat16)
    assert not fits_flash((q, q, q))


@pytest.mark.parametrize(
    ("shape", "kv_heads", "calls"),
    [
        ((1, 32, 8192, 128), 8, 1),  # all heads at once
        ((1, 32, 65536, 128), 8, 8),
        ((1, 32, 131072, 128), 8, 16),  # two heads of q share a call, four one head of k
        ((1, 32, 1 << 20, 128), 8, 32),
        ((1, 12, 1 << 20, 128), 12, 12),
        ((2, 28, 65536, 128), 4, 16),  # 7 heads of q for one of k, in calls of 2, 2, 2 and 1
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
    assert found == calls


@pytest.mark.parametrize("is_causal", [True, False])
def test_gradients_lie_in_the_memory_of_q_k_v(is_causal, monkeypatch):
    monkeypatch.setattr(_attention_flash, "_LEAST_WORK", 40)
    q, k, v = (torch.randn(2, heads, 20, 8, dtype=torch.float64) for heads in (4, 2, 2))
    leaves = [part.clone().requires_grad_() for part in (q, k, v)]
    own = torch.nn.functional.scaled_dot_product_attention(
        *leaves, is_causal=is_causal, enable_gqa=True
    )
    attention = FlashAttention(FlashCall(is_causal, None), CpuKernel())
    out, _ = attention.forward((q, k, v), KeepStore())
    torch.testing.assert_close(out, own.transpose(1, 2), rtol=ALGEBRA, atol=ALGEBRA)
    dout = torch.randn_like(out)
    expected = torch.autograd.grad(own, leaves, dout.transpose(1, 2))
    attention.put_back((q, k, v))
    found, _ = attention.backward(dout, [], out)
    assert [part.data_ptr() for part in found] == [part.data_ptr() for part in (q, k, v)]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=ALGEBRA, atol=ALGEBRA)


def test_shared_heads_of_k_are_summed_in_float32(monkeypatch):
    # 256 + 1 four times: in bfloat16 each 1 would be lost.
    monkeypatch.setattr(_attention_flash, "_LEAST_WORK", 1)

    class Constant:
        def __init__(self):
            self.values = iter([256.0, 1.0, 1.0, 1.0, 1.0])

        def forward(self, call, q, k, v):
            empty = torch.empty(0)
            return FlashResult(q.clone(), torch.zeros(q.shape[:3]), empty, empty)

        def backward(self, call, dout, q, k, v, result):
            value = next(self.values)
            return torch.zeros_like(q), torch.full_like(k, value), torch.full_like(v, value)

    q = torch.zeros(1, 5, 4, 8, dtype=torch.bfloat16)
    k, v = torch.zeros(2, 1, 1, 4, 8, dtype=torch.bfloat16)
    attention = FlashAttention(FlashCall(True, None), Constant())
    out, _ = attention.forward((q, k, v), KeepStore())
    attention.put_back((q, k, v))
    (_, dk, dv), _ = attention.backward(torch.zeros_like(out), [], out)
    assert dk.unique().tolist() == dv.unique().tolist() == [260.0]


def on_gpu(dtype):
    return om.make(
        "llama", dtype, hidden_size=256, num_attention_heads=4, num_key_value_heads=2, head_dim=64
    ).to("cuda")


@pytest.mark.gpu
@pytest.mark.parametrize("work", [1, 1 << 18])
def test_on_a_gpu_gradients_are_no_worse_than_those_of_whole_layers(monkeypatch, work):
    # StreamBP's rule: against float32, at most 1.5 times the error of the model as it is.
    monkeypatch.setattr(_attention_flash, "_LEAST_WORK", work)
    ids = om.tokens(1000, batch=2).cuda()
    model, reference = on_gpu(torch.bfloat16), on_gpu(torch.float32)
    reference.load_state_dict({name: value.float() for name, value in model.state_dict().items()})
    exact, whole = om.gradients(reference, ids), om.gradients(model, ids)
    pieces = in_pieces(model, ids, mini_sequence=128)

    def error(found):
        return sum(float((found[n].float() - exact[n]).norm() / exact[n].norm()) for n in exact)

    assert error(pieces) <= 1.5 * error(whole)


@pytest.mark.gpu
def test_on_a_gpu_policies_change_no_bit(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # asked for by the deterministic mode
    ids = om.tokens(1000, batch=2).cuda()
    torch.use_deterministic_algorithms(True)
    try:
        found = [
            in_pieces(on_gpu(torch.bfloat16), ids, om.all_of(policy), mini_sequence=128)
            for policy in Policy
        ]
    finally:
        torch.use_deterministic_algorithms(False)
    om.assert_same_bits(found[1], found[0])
    om.assert_same_bits(found[2], found[0])
