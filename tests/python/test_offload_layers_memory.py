"""Device memory of cut layers at Llama-8B's width, on the simulated device: what must be there, no more."""

from __future__ import annotations

import pathlib
import sys

import pytest

pytest.importorskip("torch", reason="torch is not installed here")
pytest.importorskip("transformers", reason="transformers is not installed here")

from dryrun_run import simulate

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "python_shim"))

from ebbtide import _native  # noqa: E402

KI = 1024
UNIT = 8 * KI  # bytes of a token of a hidden state: 4096 numbers in bfloat16

# Peaks above the parameters, in forward and in backward, for two lengths; one layer stays on the device.
PROGRAM = f"""
sys.path.insert(0, {str(ROOT / "python_shim")!r})
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.initialization import no_init_weights
from ebbtide._offload._layer import wrap_layers
from ebbtide._offload._options import Options
from ebbtide._offload._swap_store import SwapStore

config = LlamaConfig(hidden_size=4096, intermediate_size=14336, num_attention_heads=32,
                     num_key_value_heads=8, num_hidden_layers=3, vocab_size=1024, use_cache=False)
torch.set_default_dtype(torch.bfloat16)
with torch.device("cuda"), no_init_weights():
    model = LlamaForCausalLM(config).model
for parameter in model.parameters():
    parameter.register_post_accumulate_grad_hook(lambda p: setattr(p, "grad", None))
store = SwapStore("cuda", 1 << 40)
cuts = wrap_layers(model, Options(keep_last=1, mini_sequence=2048, attention=ATTENTION), store)
weights = torch.cuda.memory_allocated()

class End(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.like = x.shape, x.dtype, x.device
        return x.new_zeros(())
    @staticmethod
    def backward(ctx, gradient):
        shape, dtype, device = ctx.like
        return torch.empty(shape, dtype=dtype, device=device)

def peak():
    most = torch.cuda.max_memory_allocated() - weights
    torch.cuda.reset_peak_memory_stats()
    return most

found = []
for tokens in (256 << 10, 512 << 10):
    x = model.embed_tokens(torch.zeros(1, tokens, dtype=torch.long, device="cuda"))
    positions = torch.arange(tokens, device="cuda")[None]
    rotary = model.rotary_emb(x, position_ids=positions)
    peak()
    for layer in model.layers:
        x = layer(x, position_embeddings=rotary)
    loss = End.apply(x)
    del x
    forward = peak()
    loss.backward()
    found.append([tokens, forward, peak()])
    del loss, rotary, positions
torch._C._cuda_clearCublasWorkspaces()
stats = store.stats()
print(json.dumps([found, torch.cuda.memory_allocated() - weights, stats.swapped_out_bytes,
                  stats.live_bytes, stats.host_waits]))
"""


def run(tmp_path, attention, device):
    program = PROGRAM.replace("ATTENTION", repr(attention))
    native = str(_native.folder())
    done = simulate(program, tmp_path, device, capacity="141GiB", EBBTIDE_NATIVE_DIR=native)
    (short, long), left, out, live, waits = done.answer()
    tokens = long[0] - short[0]
    slopes = [(long[place] - short[place]) / tokens / UNIT for place in (1, 2)]
    return slopes, long, (left, out, live, waits)


@pytest.mark.parametrize("device", ["a100-80g", "h200"])  # flash, cuDNN
def test_device_memory_a_token_is_what_must_be_there(tmp_path, device):
    (forward, backward), (tokens, _, peak), (left, out, live, waits) = run(tmp_path, "save", device)
    # Forward: input, attention's output, and q, k, v before it or the layer's output after it. What
    # the layer before saved is on the host by then.
    assert 3.5 < forward <= 3.75
    # Backward: input, its gradient, attention's output and that one's gradient, 4; q, k, v becoming
    # their gradients, 1.5; rotary tables, 1/16; log-sum-exp, 1/64; attention of one head of q.
    assert 5.5 < backward <= 6.2
    assert backward * UNIT <= 50 * KI
    assert peak <= 1.05 * tokens * 6.1 * UNIT
    # Two of three layers left, with two hidden states and the log-sum-exp of 32 heads a token.
    assert out == (256 + 512) * KI * 2 * (2 * UNIT + 32 * 4)
    assert (left, live, waits) == (0, 0, 0)


def test_recomputing_attention_saves_its_output_on_the_host(tmp_path):
    (_, backward), _, (left, out, live, _) = run(tmp_path, "recompute", "h200")
    assert backward * UNIT <= 50 * KI
    assert out == (256 + 512) * KI * 2 * UNIT
    assert (left, live) == (0, 0)
