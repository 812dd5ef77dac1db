"""EBBTIDE_OFFLOAD and its budgets: programs that say nothing of offload, and the report at exit."""

from __future__ import annotations

import json

import pytest
from conftest import our_lines

pytestmark = pytest.mark.usefixtures("needs_transformers")

PROGRAM = """
    import torch, sys
    sys.path.insert(0, "tests/python")
    import offload_models as models
    model = models.make("llama", torch.float32)
    ids = models.tokens(29)
    for _ in range(3):
        output = model(input_ids=ids, labels=ids)
        output.loss.backward()
    import ebbtide
    print(type(output.logits).__name__, output.loss.item().hex())
    if type(output.logits).__name__ == "AbsentLogits":
        (model,) = ebbtide.stats().offload.models
        print(model.alpha, [layer.attention_forwards for layer in model.layers])
        assert ebbtide.report().count("\\n") >= 3
"""


@pytest.mark.parametrize("engine", ["0", "1"])
def test_the_environment_offloads_a_program_that_says_nothing(run_python, native, engine):
    settings = {"EBBTIDE": engine, "EBBTIDE_DEVICES": "cpu", "EBBTIDE_NATIVE_DIR": str(native)}
    done = run_python(PROGRAM, EBBTIDE_OFFLOAD="0.5", EBBTIDE_HOST="64MiB", **settings)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].startswith("AbsentLogits")
    assert done.stdout.splitlines()[1] == "0.5 [3, 3]"
    report = [line for line in done.stderr.splitlines() if "ebbtide offload" in line]
    assert len(report) == 1 and "alpha 0.5" in report[0]
    assert ("peak reserved" in done.stderr) == (engine == "1")
    plain = run_python(PROGRAM, **settings)
    assert plain.stdout.startswith("Tensor") and "ebbtide offload" not in plain.stderr
    losses = [float.fromhex(one.stdout.split()[1]) for one in (done, plain)]
    assert abs(losses[0] - losses[1]) < 1e-5


@pytest.mark.parametrize(
    ("name", "engine"), [("EBBTIDE_OFFLOAD", "0"), ("EBBTIDE_OFFLOAD", "1"), ("EBBTIDE_HOST", "0")]
)
def test_a_wrong_variable_is_named_and_training_goes_on(run_python, native, name, engine):
    settings = {"EBBTIDE": engine, "EBBTIDE_OFFLOAD": "0.5", "EBBTIDE_NATIVE_DIR": str(native)}
    settings |= {"EBBTIDE_REPORT": "off", "EBBTIDE_DEVICES": "cpu", name: "much"}
    done = run_python(PROGRAM, **settings)
    assert done.returncode == 0 and done.stdout.startswith("Tensor"), done.stderr
    (line,) = our_lines(done.stderr)
    assert f"{name}=much" in line and "allowed" in line


def test_a_wrong_variable_ends_a_strict_process(run_python):
    done = run_python("import torch; print(1)", EBBTIDE_OFFLOAD="2", EBBTIDE_STRICT="1")
    assert done.returncode == 2 and not done.stdout and "EBBTIDE_OFFLOAD=2" in done.stderr


def test_the_report_goes_where_the_setting_says(run_python, native, tmp_path):
    settings = {"EBBTIDE_OFFLOAD": "0.5", "EBBTIDE_NATIVE_DIR": str(native), "EBBTIDE_HOST": "64MiB"}
    for engine, target in (("0", tmp_path / "0.txt"), ("0", tmp_path / "0.json"), ("1", tmp_path / "1.json")):
        done = run_python(
            PROGRAM, EBBTIDE=engine, EBBTIDE_DEVICES="cpu", EBBTIDE_REPORT=str(target), **settings
        )
        assert done.returncode == 0 and done.stderr.strip() == "", done.stderr
    assert "ebbtide offload" in (tmp_path / "0.txt").read_text()
    for engine in ("0", "1"):
        (model,) = json.loads((tmp_path / f"{engine}.json").read_text())["offload"]["models"]
        assert model["model"] == "LlamaForCausalLM" and len(model["layers"]) == 2


def test_the_environment_lets_models_be_that_are_no_language_models(run_python, native):
    program = """
        import sys
        sys.path.insert(0, "tests/python")
        import torch
        from test_offload_architectures import make_clip
        model = make_clip()
        ids, pixels = torch.ones(2, 20, dtype=torch.long), torch.zeros(2, 3, 28, 28)
        model(input_ids=ids, pixel_values=pixels, return_loss=True).loss.backward()
        print("trained")
    """
    done = run_python(program, EBBTIDE_OFFLOAD="auto", EBBTIDE="0", EBBTIDE_NATIVE_DIR=str(native))
    assert done.returncode == 0 and done.stdout == "trained\n", done.stderr
