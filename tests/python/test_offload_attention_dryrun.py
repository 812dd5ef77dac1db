"""Attention of an offloaded model on simulated devices: on each the operators that the model itself would run."""

from __future__ import annotations

import pathlib
import sys

import pytest

pytest.importorskip("torch", reason="torch is not installed here")
pytest.importorskip("transformers", reason="transformers is not installed here")

from dryrun_run import simulate

pytestmark = pytest.mark.usefixtures("native")

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "python_shim"))

from ebbtide import _native  # noqa: E402

LAYERS, STEPS = 3, 2

PROGRAM = f"""
sys.path.insert(0, {str(ROOT / "python_shim")!r})
import ebbtide
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import LlamaConfig, LlamaForCausalLM

config = LlamaConfig(hidden_size=512, intermediate_size=1024, num_attention_heads=8, num_key_value_heads=KV_HEADS,
                     num_hidden_layers={LAYERS}, vocab_size=1024, use_cache=False, dtype="bfloat16")
with torch.device("cuda"):
    model = LlamaForCausalLM(config).to(torch.bfloat16).train()
ids = torch.zeros(1, 4096, dtype=torch.long, device="cuda")

def attention():
    "How often each operator of attention ran in some steps."
    with torch.autograd.profiler.profile() as profile:
        for _ in range({STEPS}):
            model(input_ids=ids, labels=ids).loss.backward()
    kinds = "cudnn", "flash", "efficient"
    names = [f"_{{kind}}_attention_{{way}}" for kind in kinds for way in ("forward", "backward")]
    found = {{each.key: each.count for each in profile.key_averages()}}
    return {{name: found["aten::" + name] for name in names if "aten::" + name in found}}
"""


def counts(tmp_path, device, code, kv_heads):
    program = PROGRAM.replace("KV_HEADS", str(kv_heads)) + code
    return simulate(program, tmp_path, device, EBBTIDE_NATIVE_DIR=str(_native.folder())).answer()


@pytest.mark.parametrize("device, kind", [("h200", "cudnn"), ("a100-80g", "flash")])
def test_the_offloaded_model_runs_the_attention_that_the_model_runs(tmp_path, device, kind):
    code = """
own = attention()
ebbtide.offload(model, alpha=0.5, mini_sequence=1024)
print(json.dumps([own, attention()]))
"""
    once = LAYERS * STEPS
    expected = {f"_{kind}_attention_forward": once, f"_{kind}_attention_backward": once}
    assert counts(tmp_path, device, code, kv_heads=2) == [expected, expected]


def test_what_the_user_allows_counts_for_the_offloaded_model(tmp_path):
    code = """
ebbtide.offload(model, alpha=0.5, mini_sequence=1024)
found = []
for allowed in (SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.CUDNN_ATTENTION):
    with sdpa_kernel(allowed):
        found.append(attention())
torch.use_deterministic_algorithms(True)
print(json.dumps([*found, attention()]))
"""
    once = LAYERS * STEPS
    kinds = ("flash", "efficient", "cudnn", "flash")
    expected = [{f"_{kind}_attention_{way}": once for way in ("forward", "backward")} for kind in kinds]
    # The memory-efficient kernel wants as many heads of k and v as of q.
    assert counts(tmp_path, "h200", code, kv_heads=8) == expected
