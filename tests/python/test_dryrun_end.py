"""The end of a dry run: the interpreter waits until autograd's threads are done with the last backward.

One that asks for it afterwards is torn down in the midst of C++, and the process aborts.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest
from dryrun_run import ROOT
from interrupts import hear_ctrl_c

# What is registered before torch is imported is called behind what waits.
PROGRAM = """
import atexit, threading, time
done = []
atexit.register(lambda: print("passes done:", len(done)))
import torch

started = threading.Event()

class Slow(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()
    @staticmethod
    def backward(ctx, gradient):
        gradient = gradient * 2
        started.set()
        time.sleep(1)
        done.append(True)
        return gradient

x = torch.ones(4, device="cuda", requires_grad=True)
threading.Thread(target=Slow.apply(x).sum().backward, daemon=True).start()
started.wait()
"""


def test_the_interpreter_ends_behind_the_last_backward(run_python, native, tmp_path):
    if not any((native / "dryrun").glob("libcudart.so.*")):
        pytest.skip("no stand-in CUDA libraries were built (torch here is not a CUDA build)")
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    command = ["-m", "ebbtide", "dryrun", "--device", "h200", "--", sys.executable, program]
    done = run_python(command, EBBTIDE_NATIVE_DIR=str(native))
    assert "passes done: 1" in done.stdout, done.stderr
    assert "terminate called" not in done.stderr


ENDED = """
import os, signal, sys, time, torch
model = torch.nn.Linear(512, 512).cuda()
optimizer = torch.optim.SGD(model.parameters(), 0.1)
for _ in range(4):
    model(torch.empty(8, 512, device="cuda")).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
print("trained", flush=True)
if sys.argv[1] == "wait":
    time.sleep(100)
os.kill(os.getpid(), signal.SIGKILL)
"""


def start(program, tmp_path, native, how):
    if not any((native / "dryrun").glob("libcudart.so.*")):
        pytest.skip("no stand-in CUDA libraries were built (torch here is not a CUDA build)")
    program.write_text(ENDED)
    return subprocess.Popen(
        [sys.executable, "-m", "ebbtide", "dryrun", "--json", tmp_path / "run.json", "--", sys.executable, program, how],
        env=os.environ | {"PYTHONPATH": str(ROOT / "python_shim"), "EBBTIDE_NATIVE_DIR": str(native)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=hear_ctrl_c,
    )


def test_ctrl_c_leaves_what_was_seen_until_then(tmp_path, native):
    with start(tmp_path / "program.py", tmp_path, native, "wait") as running:
        assert running.stdout is not None and running.stdout.readline() == "trained\n"
        os.killpg(running.pid, signal.SIGINT)  # as a terminal does: both are asked to end
        _, said = running.communicate(timeout=60)
    assert running.returncode == 130, said
    assert "peak held" in said and "a step takes" in said
    assert json.loads((tmp_path / "run.json").read_text())["time"]["steps"] >= 3


def test_a_program_that_is_killed_is_not_said_to_have_used_no_device(tmp_path, native):
    with start(tmp_path / "program.py", tmp_path, native, "kill") as running:
        _, said = running.communicate(timeout=60)
    assert running.returncode == 128 + signal.SIGKILL
    assert "no report: the program ended at once" in said and "used no device" not in said
    assert not (tmp_path / "run.json").exists()
