"""The scripts: they parse, link the checkout, and say clearly what they cannot do here."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRIPTS = ["scripts/demo", "scripts/test", "scripts/gpu-check", ".ci/run", "scripts/lib/bootstrap.sh", "scripts/lib/steps.sh"]


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_parse(script):
    subprocess.run(["bash", "-n", str(ROOT / script)], check=True)


@pytest.mark.parametrize("script", SCRIPTS[:-2])
def test_scripts_can_be_started(script):
    assert os.access(ROOT / script, os.X_OK)


def bootstrap(command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    source = f". {ROOT / 'scripts/lib/bootstrap.sh'}; {command}"
    return subprocess.run(
        ["bash", "-c", source], env=os.environ | variables, capture_output=True, text=True
    )


def test_a_python_that_is_none_is_named():
    done = bootstrap("find_base_python", EBBTIDE_PYTHON="no-such-python")
    assert done.returncode == 2 and done.stdout == ""
    assert "no-such-python" in done.stderr and "EBBTIDE_PYTHON" in done.stderr


def test_missing_packages_are_those_whose_proof_is_missing():
    done = bootstrap("SYSTEM_PACKAGES='here:bash gone:/no/such/file also-gone:no-such-command'; "
                     "missing_packages")
    assert done.stdout.split() == ["gone", "also-gone"]


def test_without_apt_the_missing_packages_are_named(tmp_path):
    done = bootstrap("PATH=/nonexistent; install_packages one two")
    assert done.returncode == 2
    assert "one two" in done.stderr and "apt-get" in done.stderr


def test_metadata_says_what_pyproject_says(metadata):
    (folder,) = metadata.glob("ebbtide-*.dist-info")
    text = (folder / "entry_points.txt").read_text()
    project = (ROOT / "pyproject.toml").read_text()
    for name, target in re.findall(r'^(ebbtide) = "([\w.]+:\w+)"$', project, re.MULTILINE):
        assert f"{name} = {target}" in text
    assert "[torch.backends]" in text and "[console_scripts]" in text


def test_test_refuses_an_unknown_argument():
    done = subprocess.run([str(ROOT / "scripts/test"), "--fast"], capture_output=True, text=True)
    assert done.returncode == 2 and "--fast" in done.stderr


def test_the_end_names_what_failed(tmp_path):
    program = f"""
        set -euo pipefail
        say() {{ echo "$*"; }}
        ROOT={tmp_path}
        . {ROOT / 'scripts/lib/steps.sh'}
        bad() {{ echo 'E       assert -11 == 0'; echo 'FAILED tests/a.py::b - AssertionError: c'; echo '  3 - Some.Test (Failed)'; echo 'more'; false; }}
        stops() {{ exit 2; }}
        run_step first true
        run_step second bad
        run_step third stops
        show_results
        exit $failed
    """
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True)
    assert done.returncode == 1
    assert [line.strip() for line in done.stdout.split("result\n")[1].splitlines()] == [
        "passed  first",
        "FAILED  second",
        "FAILED tests/a.py::b - AssertionError: c",
        "3 - Some.Test (Failed)",
        "E       assert -11 == 0",
        "FAILED  third",
    ]


def test_gpu_check_says_that_there_is_no_gpu():
    probe = "import torch, sys; sys.exit(torch.cuda.is_available())"
    if subprocess.run([sys.executable, "-c", probe], env=os.environ | {"EBBTIDE": "0"}).returncode:
        pytest.skip("there is a GPU here")
    done = subprocess.run(
        [str(ROOT / "scripts/gpu-check")],
        env=os.environ | {"EBBTIDE_PYTHON": sys.executable},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith("ebbtide error no usable GPU")


def test_the_training_example_draws_the_same_documents_again():
    sys.path.insert(0, str(ROOT / "examples"))
    pytest.importorskip("transformers", reason="transformers is not installed here")
    import train_llama

    texts = train_llama.documents(40, 4096, seed=1)
    assert texts == train_llama.documents(40, 4096, seed=1)
    assert texts != train_llama.documents(40, 4096, seed=2)
    assert len({len(text) for text in texts}) > 5 and max(map(len, texts)) == 4096
