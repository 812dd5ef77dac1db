"""Which kernel an offloaded layer's attention runs on: the one that torch would choose for the model itself."""

from __future__ import annotations

import contextlib

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed here")
pytest.importorskip("transformers", reason="transformers is not installed here")

import offload_models as om
from attention_stand_ins import CUDNN, FLASH, operators_on_cpu, take_cpu_tensors, torch_chooses
from ebbtide._offload._attention_call import AttentionCall
from ebbtide._offload._attention_choice import fused_for
from ebbtide._offload._layer import wrap_layers
from ebbtide._offload._options import Options
from ebbtide._offload._store import KeepStore
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

CPU_FLASH = "_scaled_dot_product_flash_attention_for_cpu"  # what torch itself uses here


@pytest.fixture
def calls(monkeypatch):
    """CUDA's operators take tensors of the CPU, where torch's answer says so; their calls."""
    take_cpu_tensors(monkeypatch)
    with operators_on_cpu() as calls:
        yield calls


class Seen(TorchDispatchMode):
    """The operators that ran."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.append(function._schema.name.removeprefix("aten::"))
        return function(*args, **(kwargs or {}))


def train(
    model, ids, allowed_in_forward=None, is_cut=True, *, set_priority=False, **options
):
    """One step in pieces; the operators of it."""
    cuts = wrap_layers(model, Options(mini_sequence=16, keep_last=0, **options), KeepStore())
    if not is_cut:
        for tally in cuts.counts():
            cuts.treat_whole(tally.name, "a test wants it so")
    allow = contextlib.nullcontext() if allowed_in_forward is None else sdpa_kernel(allowed_in_forward, set_priority)
    try:
        with Seen() as seen:
            with allow:
                loss = om.body_loss(model, ids)
            loss.backward()
    finally:
        cuts.undo()
    return seen.names


@pytest.mark.parametrize(
    ("backend", "operator"), [("CUDNN_ATTENTION", CUDNN), ("FLASH_ATTENTION", FLASH)]
)
def test_the_kernel_is_the_one_that_torch_chooses(calls, monkeypatch, backend, operator):
    asked = torch_chooses(monkeypatch, SDPBackend.__members__[backend])
    train(om.make("llama"), om.tokens(50, batch=2))
    assert calls.forward == calls.backward == [operator] * om.LAYERS
    question = {"mask": None, "dropout": 0.0, "is_causal": True, "trains": True, "enable_gqa": True}
    assert asked == [{**question, "scale": 8**-0.5}] * om.LAYERS


@pytest.mark.parametrize("backend", ["MATH", "EFFICIENT_ATTENTION", "ERROR", "OVERRIDEABLE"])
def test_any_other_answer_leaves_it_to_the_models_own_attention(calls, monkeypatch, backend):
    torch_chooses(monkeypatch, SDPBackend.__members__[backend])
    model, ids = om.make("llama"), om.tokens(50, batch=2)
    expected = om.gradients(model, ids)
    cuts = wrap_layers(model, Options(mini_sequence=16), KeepStore())
    assert om.worst_error(om.gradients(model, ids), expected) <= 1e-10
    cuts.undo()
    assert calls.forward == []


def test_what_the_user_allows_is_asked_anew_at_each_call(calls):
    model, ids = om.make("llama"), om.tokens(50)
    for allowed, fused in (
        (None, True),
        (SDPBackend.MATH, False),
        (None, True),
        ([SDPBackend.MATH, SDPBackend.FLASH_ATTENTION], True),
    ):
        before = len(calls.forward)
        names = train(model, ids, allowed)
        assert len(calls.forward) - before == (om.LAYERS if fused else 0)
        assert ("_safe_softmax" in names) is not fused


def test_a_torch_that_cannot_be_asked_runs_the_models_own_attention(calls, monkeypatch):
    monkeypatch.delattr(torch, "_fused_sdp_choice")
    train(om.make("llama"), om.tokens(50))
    assert calls.forward == []


@pytest.mark.parametrize(
    ("answers", "operators"),
    [
        (["CUDNN_ATTENTION"] * 2 + ["FLASH_ATTENTION"] * 2, [CUDNN] * 4),
        (["MATH"] * 2 + ["FLASH_ATTENTION"] * 2, []),
    ],
)
def test_attention_that_runs_again_runs_on_the_same_kernel(calls, monkeypatch, answers, operators):
    remaining = iter(answers)
    monkeypatch.setattr(
        torch, "_fused_sdp_choice", lambda *_, **__: SDPBackend.__members__[next(remaining)].value
    )
    train(om.make("llama"), om.tokens(50), attention="recompute")
    assert calls.forward == operators


@pytest.mark.parametrize("is_cut", [True, False])
def test_what_was_allowed_in_forward_is_allowed_where_it_runs_again(is_cut):
    """`sdpa_kernel` around forward alone, and attention, or a whole layer, that runs again in backward."""
    names = train(om.make("llama"), om.tokens(50), SDPBackend.MATH, is_cut, attention="recompute")
    assert CPU_FLASH not in names
    assert names.count("_safe_softmax") == 2 * om.LAYERS
    assert torch.backends.cuda.flash_sdp_enabled()


@pytest.fixture
def seen_by_attention(monkeypatch):
    """A function whose value at each run of a layer's attention is wanted; the values."""
    values = []

    def look(function):
        def attend(layer, query, *args, **kwargs):
            values.append(function(query))
            return sdpa_attention_forward(layer, query, *args, **kwargs)

        monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS, "sdpa", attend)
        return values

    return look


@pytest.mark.parametrize("is_cut", [True, False])
def test_what_was_preferred_in_forward_is_preferred_where_it_runs_again(is_cut, seen_by_attention):
    orders = seen_by_attention(lambda _: torch._C._get_sdp_priority_order()[:2])
    usual = torch._C._get_sdp_priority_order()
    preferred = [SDPBackend.MATH, SDPBackend.FLASH_ATTENTION]
    ids = om.tokens(50)
    train(om.make("llama"), ids, preferred, is_cut, set_priority=True, attention="recompute")
    assert orders == [list(map(int, preferred))] * (2 * om.LAYERS)
    assert torch._C._get_sdp_priority_order() == usual


@pytest.mark.parametrize("is_cut", [True, False])
def test_the_first_run_of_what_runs_again_is_one_of_training(is_cut, seen_by_attention):
    """Or torch could choose a kernel that has no backward, and the second run another one with other bits."""
    trains = seen_by_attention(lambda query: query.requires_grad and torch.is_grad_enabled())
    train(om.make("llama"), om.tokens(50), is_cut=is_cut, attention="recompute")
    assert trains == [True] * (2 * om.LAYERS)


def test_evaluation_is_the_models_own_attention(calls, monkeypatch):
    torch_chooses(monkeypatch, SDPBackend.CUDNN_ATTENTION)
    model = om.make("llama").eval()
    cuts = wrap_layers(model, Options(mini_sequence=16), KeepStore())
    with torch.no_grad(), Seen() as seen:
        om.body_loss(model, om.tokens(50))
    cuts.undo()
    assert calls.forward == []
    assert seen.names.count(CPU_FLASH) == om.LAYERS


def call(q, k, v, **kwargs):
    module = torch.nn.Identity()
    module.num_key_value_groups = q.shape[1] // k.shape[1]
    return fused_for(AttentionCall(sdpa_attention_forward, module, (None,), kwargs), (q, k, v))


class Sharded(torch.Tensor):
    pass


def test_what_the_operators_would_not_take_as_it_is(calls, monkeypatch):
    torch_chooses(monkeypatch, SDPBackend.CUDNN_ATTENTION)
    q, k = torch.zeros(1, 4, 8, 16), torch.zeros(1, 2, 8, 16)
    assert call(q, k, k) is not None
    assert call(q, k, k[..., :8]) is None  # torch wants as wide a v where k and v serve several heads of q
    assert call(q, q, q[..., :8]) is not None
    assert call(q[..., :12], k[..., :12], k[..., :12]) is None  # padded by the model's own call
    assert call(q, k.half(), k) is None
    assert call(q.as_subclass(Sharded), k, k) is None
    with torch.autocast("cpu", torch.bfloat16):
        assert call(q, k, k) is None
        assert call(*(part.bfloat16() for part in (q, k, k))) is not None
    assert call(*(part.to("meta") for part in (q, k, k))) is None
