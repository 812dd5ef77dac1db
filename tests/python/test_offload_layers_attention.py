"""torch's fused attention called directly, a few heads at a time: same numbers as the model's own attention."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed here")
pytest.importorskip("transformers", reason="transformers is not installed here")

import offload_models as om
from attention_stand_ins import CUDNN, FLASH, operators_on_cpu, take_cpu_tensors, torch_chooses
from ebbtide._offload import _attention_groups
from ebbtide._offload._attention_call import AttentionCall, FusedCall
from ebbtide._offload._layer import wrap_layers
from ebbtide._offload._options import Options
from ebbtide._offload._pieces import Policy
from ebbtide._offload._store import KeepStore
from torch.nn.attention import SDPBackend
from transformers.integrations.sdpa_attention import sdpa_attention_forward

ALGEBRA = 1e-10
BACKENDS = {FLASH: SDPBackend.FLASH_ATTENTION, CUDNN: SDPBackend.CUDNN_ATTENTION}


@pytest.fixture(params=BACKENDS)
def fused(request, monkeypatch):
    """torch chooses one of its fused kernels for tensors of the CPU; calls of its operators."""
    take_cpu_tensors(monkeypatch)
    torch_chooses(monkeypatch, BACKENDS[request.param])
    with operators_on_cpu() as calls:
        yield calls
    assert set(calls.forward + calls.backward) <= {request.param}


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
def test_layers_with_fused_attention_are_exact(fused, monkeypatch, work, kv_heads, attention):
    monkeypatch.setattr(_attention_groups, "_LEAST_WORK", work)
    model = om.make("llama", num_key_value_heads=kv_heads)
    ids = om.tokens(50, batch=2)
    expected = om.gradients(model, ids)
    assert om.worst_error(in_pieces(model, ids, attention=attention), expected) <= ALGEBRA
    assert len(fused.forward) == om.LAYERS * (2 if attention == "recompute" else 1)


@pytest.mark.parametrize("architecture", ["qwen3", "phi3", "granite", "cohere", "gpt2", "gpt_neox"])
def test_other_architectures_take_the_fused_form(fused, architecture):
    model, ids = om.make(architecture), om.tokens(50, batch=2)
    expected = om.gradients(model, ids)
    assert om.worst_error(in_pieces(model, ids), expected) <= ALGEBRA
    assert len(fused.forward) == om.LAYERS


class _Tanh(torch.nn.Linear):
    """Saves its own result, which is the value that attention's backward writes over."""

    def forward(self, x):
        return super().forward(x).tanh()


@pytest.mark.parametrize("piece", [16, 50])
@pytest.mark.parametrize("attention", ["save", "recompute"])
def test_policies_change_no_bit(fused, piece, attention):
    model, ids = om.make("llama", torch.float32), om.tokens(50)
    for layer in om.layers_of(model):
        layer.self_attn.v_proj.__class__ = _Tanh
    expected = om.gradients(model, ids)
    options = {"mini_sequence": piece, "attention": attention}
    found = [in_pieces(model, ids, om.all_of(policy), **options) for policy in Policy]
    om.assert_same_bits(found[1], found[0])
    om.assert_same_bits(found[2], found[0])
    assert om.worst_error(found[0], expected) <= 1e-4


def test_a_mask_a_window_or_dropout_is_left_to_the_models_own_attention(fused):
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
    assert fused.forward == []


def as_fused(kwargs, mask=None, function=sdpa_attention_forward, groups=1, tokens=50, width=16, causal=True):
    module = torch.nn.Identity()
    module.num_key_value_groups, module.is_causal = groups, causal
    q, k = torch.zeros(1, 4, tokens, width), torch.zeros(1, 4 // groups, tokens, width)
    return AttentionCall(function, module, (mask,), kwargs).as_fused((q, k, k))


@pytest.mark.parametrize(
    ("kwargs", "expected"),
    [
        ({}, FusedCall(True, None, False)),
        ({"dropout": 0.0, "scaling": 0.25, "sliding_window": None}, FusedCall(True, 0.25, False)),
        ({"is_causal": False}, FusedCall(False, None, False)),
        ({"dropout": 0.1}, None),
        ({"position_bias": torch.zeros(1)}, None),
        ({"attention_mask": torch.zeros(1)}, None),
    ],
)
def test_which_calls_the_fused_kernels_answer(kwargs, expected):
    assert as_fused(kwargs) == expected


def test_what_else_is_no_call_for_the_fused_kernels():
    assert as_fused({}, mask=torch.zeros(1, 1, 50, 50)) is None
    assert as_fused({}, function=lambda *_: None) is None
    assert as_fused({}, causal=False).is_causal is False
    # A single token attends to itself: transformers says so without is_causal.
    assert as_fused({}, tokens=1).is_causal is False


def test_shared_heads_are_handed_over_as_transformers_does():
    assert as_fused({}, groups=2).enable_gqa
    assert as_fused({}, groups=2, width=264) is None  # there it repeats heads of k and v
    assert as_fused({}, groups=1, width=264) == FusedCall(True, None, False)


def on_gpu(dtype):
    return om.make(
        "llama", dtype, hidden_size=256, num_attention_heads=4, num_key_value_heads=2, head_dim=64
    ).to("cuda")


@pytest.mark.gpu
@pytest.mark.parametrize("work", [1, 1 << 18])
def test_on_a_gpu_gradients_are_no_worse_than_those_of_whole_layers(monkeypatch, work):
    # StreamBP's rule: against float32, at most 1.5 times the error of the model as it is.
    monkeypatch.setattr(_attention_groups, "_LEAST_WORK", work)
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
