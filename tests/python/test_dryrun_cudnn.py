"""cuDNN's attention on simulated devices: where torch takes it, it is taken, with its memory."""

from __future__ import annotations

import textwrap

import pytest
from dryrun_run import ASKED_FOR, simulate

# Batch, heads of q, heads of k and v, tokens, tokens of k and v, size, causal. cuDNN 9.19's own plans for an
# H200 (built without a device, from its properties) want these bytes of workspace for the backward:
PLANS = {
    (1, 32, 32, 8192, 8192, 128, True): 135266560,
    (1, 32, 8, 8192, 8192, 128, True): 269484288,
    (2, 32, 8, 4096, 4096, 128, True): 269484288,
    (1, 12, 12, 1024, 1024, 64, True): 3195136,
    (3, 12, 12, 1000, 1000, 64, True): 9360256,
    (2, 16, 4, 777, 777, 96, True): 19195264,
    (2, 8, 8, 512, 1024, 128, False): 4227328,
    (1, 28, 4, 16384, 16384, 128, False): 471597312,
    (4, 16, 2, 4096, 4096, 64, True): 135266560,
}
FORWARD = 256

ATTENTION = """
from torch.nn.attention import SDPBackend, sdpa_kernel

def made(batch, heads, tokens, size, dtype=torch.bfloat16):
    base = torch.empty(batch, tokens, heads, size, dtype=dtype, device="cuda", requires_grad=True)
    return base.transpose(1, 2)

def attend(batch, heads, kv_heads, tokens, keys, size, causal, dtype=torch.bfloat16):
    q = made(batch, heads, tokens, size, dtype)
    k, v = (made(batch, kv_heads, keys, size, dtype) for _ in range(2))
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=heads != kv_heads)

def operator(*shape, **options):
    return type(attend(*shape, **options).grad_fn).__name__

LLAMA = (1, 32, 8, 8192, 8192, 128, True)
"""


def answer(tmp_path, program, device="h200"):
    return simulate(ASKED_FOR + ATTENTION + textwrap.dedent(program), tmp_path, device=device).answer()


@pytest.mark.parametrize(
    "device, expected", [("h200", "Cudnn"), ("h100-80g", "Cudnn"), ("a100-80g", "Flash"), ("l40s", "Flash")]
)
def test_torchs_own_choice_is_taken_on_each_device(tmp_path, device, expected):
    name = answer(tmp_path, "print(json.dumps(operator(*LLAMA)))", device)
    assert name == f"ScaledDotProduct{expected}AttentionBackward0"


def test_what_a_program_switches_off_stays_off(tmp_path):
    program = """
    torch.backends.cuda.enable_cudnn_sdp(False)  # before the device is used
    names = [operator(*LLAMA)]
    torch.backends.cuda.enable_cudnn_sdp(True)
    names.append(operator(*LLAMA))
    with sdpa_kernel(SDPBackend.EFFICIENT_ATTENTION):
        names.append(operator(1, 8, 8, 1024, 1024, 64, True))
    names.append(operator(1, 8, 8, 1024, 1024, 64, True, dtype=torch.float32))
    torch.use_deterministic_algorithms(True)
    names.append(operator(*LLAMA))
    print(json.dumps(names))
    """
    kernels = ["Flash", "Cudnn", "Efficient", "Efficient", "Flash"]
    assert answer(tmp_path, program) == [f"ScaledDotProduct{name}AttentionBackward0" for name in kernels]


def test_workspaces_are_those_of_cudnns_own_plans(tmp_path):
    program = f"""
    found = []
    for shape in {list(PLANS)}:
        out, forward = asked_for(lambda: attend(*shape))
        gradient = torch.empty_like(out)
        _, backward = asked_for(lambda: out.backward(gradient))
        found.append([forward, backward])
    print(json.dumps(found))
    """
    for (forward, backward), bytes_of_plan in zip(answer(tmp_path, program), PLANS.values(), strict=True):
        assert FORWARD in forward
        assert bytes_of_plan in backward


def test_it_can_be_captured_in_a_graph(tmp_path):
    program = """
    attend(*LLAMA)
    graph = torch.cuda.CUDAGraph()
    with torch.no_grad(), torch.cuda.graph(graph):
        out = attend(*LLAMA)
    graph.replay()
    print(json.dumps(list(out.shape)))
    """
    assert answer(tmp_path, program) == [1, 32, 8192, 128]
