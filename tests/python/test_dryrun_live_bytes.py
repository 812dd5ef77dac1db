"""Live bytes of a dry run against those of the same operators on CPU tensors: equal, to the byte."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from dryrun_run import ROOT, simulated_environment

PROGRAM = ROOT / "tests" / "python" / "programs" / "live_bytes.py"
# cuBLAS's workspaces would stay alive, and the CPU has none.
WITHOUT_WORKSPACES = {"CUBLAS_WORKSPACE_CONFIG": ":0:0", "CUBLASLT_WORKSPACE_SIZE": "0"}


def peaks(device, variables):
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("EBBTIDE", "PYTORCH_"))}
    done = subprocess.run(
        [sys.executable, str(PROGRAM), device],
        env=kept | {"TORCH_DEVICE_BACKEND_AUTOLOAD": "0"} | variables,
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_peaks_are_those_of_the_same_operators_on_cpu_tensors(tmp_path):
    simulated = peaks("cuda", simulated_environment(tmp_path) | WITHOUT_WORKSPACES)
    real = peaks("cpu", {"CUDA_VISIBLE_DEVICES": ""})
    assert len(real) == 5 and all(peak > 100_000 for peak in real.values())
    assert simulated == real
