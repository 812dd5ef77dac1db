"""Training with the real torch on simulated devices, and the launcher."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from dryrun_run import ROOT, simulate

LLAMA = """
from transformers import LlamaConfig, LlamaForCausalLM
seen = []
config = LlamaConfig(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
                     num_key_value_heads=2, vocab_size=100)
with torch.device("cuda"):
    model = LlamaForCausalLM(config)
sdpa = torch.nn.functional.scaled_dot_product_attention
def watch(*arguments, **options):
    mask = options.get("attn_mask")
    seen.append(None if mask is None else list(mask.shape))
    return sdpa(*arguments, **options)
torch.nn.functional.scaled_dot_product_attention = watch
optimizer = torch.optim.AdamW(model.parameters(), fused=True)
def step(length, **more):
    ids = torch.randint(0, 100, (2, length), device="cuda")
    model(input_ids=ids, labels=ids, **more).loss.backward()
    optimizer.step()
    optimizer.zero_grad()
"""


def test_a_module_trains(tmp_path):
    done = simulate(
        """
        model = torch.nn.Sequential(torch.nn.Embedding(50, 32), torch.nn.Conv1d(20, 20, 3), torch.nn.GELU(),
                                    torch.nn.LayerNorm(30), torch.nn.Dropout(0.1), torch.nn.Linear(30, 50))
        model.cuda()
        optimizer = torch.optim.AdamW(model.parameters(), foreach=True)
        for _ in range(3):
            ids = torch.randint(0, 50, (4, 20), device="cuda")
            loss = torch.nn.functional.cross_entropy(model(ids).flatten(0, 1), ids.flatten())
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
        print(json.dumps([reads(), loss.item(), reads()]))
        """,
        tmp_path,
    )
    assert done.answer() == [0, 1.0, 1]  # a loss reads as its typical value
    assert done.report["kernel_launches"] > 50
    assert done.report["unimplemented_calls"] == 0


@pytest.mark.parametrize("checkpointing", [False, True])
def test_llama_trains_without_masks_for_plain_inputs(tmp_path, needs_transformers, checkpointing):
    done = simulate(
        LLAMA
        + f"""
if {checkpointing}:
    model.gradient_checkpointing_enable()
    model.train()
step(48)
step(64, attention_mask=torch.ones(2, 64, dtype=torch.long, device="cuda"))
print(json.dumps([all(mask is None for mask in seen), len(seen), reads()]))
""",
        tmp_path,
    )
    # Checkpointing runs each layer twice: in the forward pass and again in the backward pass.
    assert done.answer() == [True, 8 if checkpointing else 4, 0]


def test_llama_gets_the_mask_that_padding_needs(tmp_path, needs_transformers):
    done = simulate(
        LLAMA
        + """
mask = torch.ones(2, 16, dtype=torch.long, device="cuda")
mask[0, :3] = 0
step(16, attention_mask=mask)
print(json.dumps([seen, reads()]))
""",
        tmp_path,
    )
    assert done.answer() == [[[2, 1, 16, 16]] * 2, 0]


def test_a_step_at_8b_width_holds_what_was_measured_before(tmp_path, needs_transformers):
    # GIVEN the prototype's loop: 8 layers of 8B width, length 8192, the step in a function
    done = simulate(
        """
        from transformers import LlamaConfig, LlamaForCausalLM
        config = LlamaConfig(hidden_size=4096, intermediate_size=14336, num_hidden_layers=8,
                             num_attention_heads=32, num_key_value_heads=8, vocab_size=32000)
        torch.set_default_dtype(torch.bfloat16)
        with torch.device("cuda"):
            model = LlamaForCausalLM(config)
        optimizer = torch.optim.AdamW(model.parameters(), fused=True)
        def step():
            ids = torch.randint(0, 32000, (1, 8192), device="cuda")
            out = model(input_ids=ids, labels=ids, use_cache=False)
            out.loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        for _ in range(5):
            step()
        print(json.dumps([torch.cuda.max_memory_allocated() / 2**30, used() / 2**30, reads()]))
        """,
        tmp_path,
        capacity="141GB",
    )
    # THEN the peaks are those of reference/prototype.md: 27.18 GiB live, 1.043 times that held
    live, held, read = done.answer()
    assert live == pytest.approx(27.18, rel=0.01)
    assert held / live == pytest.approx(1.043, abs=0.015)
    assert read == 0


def test_what_is_not_simulated_fails_with_its_name(tmp_path):
    done = simulate(
        """
        torch.cuda.init()
        status = device.cudaGraphClone(None, None)
        print(json.dumps(torch.cuda.cudart().cudaGetErrorString(torch.cuda.cudart().cudaError(status))))
        """,
        tmp_path,
    )
    assert "not supported" in done.answer()
    assert "ebbtide dryrun: cudaGraphClone is not simulated" in done.stderr
    assert done.report["unimplemented_calls"] == 1


def test_streams_and_events_keep_order(tmp_path):
    done = simulate(
        """
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        side = torch.cuda.Stream(priority=-1)
        start.record()
        with torch.cuda.stream(side):
            x = torch.arange(5, device="cuda") * 2
            x.record_stream(side)
        torch.cuda.current_stream().wait_stream(side)
        end.record()
        torch.cuda.synchronize()
        print(json.dumps([0 <= start.elapsed_time(end) < 60000, side.query(), x.tolist(),
                          torch.cuda.is_current_stream_capturing()]))
        """,
        tmp_path,
    )
    assert done.answer() == [True, True, [0, 2, 4, 6, 8], False]
    assert done.report["device_synchronizations"] == 1


def test_kernels_compiled_at_run_time_do_not_fail(tmp_path):
    done = simulate(
        """
        x = torch.special.zeta(torch.rand(4, device="cuda"), 2.0)
        print(json.dumps([list(x.shape), torch.gcd(torch.tensor([12], device="cuda"),
                                                   torch.tensor([18], device="cuda")).item()]))
        """,
        tmp_path,
    )
    assert done.answer() == [[4], 6]


def launch(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("PYTORCH_")
    }
    environment |= {"PYTHONPATH": str(ROOT / "python_shim"), "TORCH_DEVICE_BACKEND_AUTOLOAD": "0"}
    return subprocess.run(
        [sys.executable, "-m", "ebbtide._dryrun", *arguments],
        env=environment | variables,
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_launcher_prints_a_summary_and_passes_the_status_on(tmp_path):
    simulate("pass", tmp_path)  # skips where there are no stand-ins
    code = "import torch; x = torch.empty(3 << 30, dtype=torch.uint8, device='cuda'); raise SystemExit(7)"
    out = tmp_path / "out.json"
    done = launch(
        "--device",
        "a100-80g",
        "--capacity",
        "8GiB",
        "--json",
        str(out),
        "--",
        sys.executable,
        "-c",
        code,
    )
    assert done.returncode == 7
    assert (
        "NVIDIA A100-SXM4-80GB 0: capacity 8.00 GiB, peak held 3.00 GiB, peak live 3.00 GiB, 0 retries"
        in done.stderr
    )
    assert json.loads(out.read_text())["devices"][0]["peak_bytes"] == 3 << 30


@pytest.mark.parametrize(
    ("arguments", "named", "allowed"),
    [
        (["--device", "h300"], "--device h300", "a100-40g, a100-80g, a800-80g, h100-80g, h200, l40s, rtx4090"),
        (["--capacity", "much"], "--capacity much", "141GB"),
        (["--count", "99"], "--count 99", "1 to 16"),
    ],
)
def test_a_wrong_option_is_one_line_that_names_it(arguments, named, allowed):
    done = launch(*arguments, "--", sys.executable, "-c", "print('ran')")
    assert done.returncode == 2 and "ran" not in done.stdout
    (line,) = done.stderr.splitlines()
    assert named in line and allowed in line


def test_without_torch_there_is_one_line(tmp_path):
    # -S leaves out site-packages, and torch with it
    environment = {"PYTHONPATH": str(ROOT / "python_shim"), "PATH": os.environ["PATH"]}
    code = "from ebbtide import _dryrun; raise SystemExit(_dryrun.run(['true']))"
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        env=environment,
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert done.stderr == "ebbtide dryrun: torch is not installed: pip install torch\n"


def test_a_device_runs_what_was_compiled_for_a_lower_architecture(tmp_path):
    # 8.9: torch has no kernels for it, and CUB's scans look for their own
    done = simulate("print(json.dumps(torch.ones(5, dtype=torch.long, device='cuda').cumsum(0).tolist()))", tmp_path, "l40s")
    assert done.answer() == [1, 2, 3, 4, 5]
