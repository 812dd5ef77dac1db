"""The end of a dry run: the interpreter waits until autograd's threads are done with the last backward.

One that asks for it afterwards is torn down in the midst of C++, and the process aborts.
"""

from __future__ import annotations

import sys

import pytest

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
    done = run_python(["-m", "ebbtide", "dryrun", "--device", "h200", "--", sys.executable, program])
    assert "passes done: 1" in done.stdout, done.stderr
    assert "terminate called" not in done.stderr
