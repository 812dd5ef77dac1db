"""Ends while an autograd thread still frees a Python object: what a backward pass calls at its end, as FSDP2 has it.

Who lets go of that object last is a race: here the thread of the device loses it, since it runs only while the program rests.
"""

from __future__ import annotations

import os
import time

import torch
import torch.distributed as dist
from torch.autograd import Variable

CPU = {min(os.sched_getaffinity(0))}


class AtTheEnd:
    """Called last in a backward pass; takes a second to free, and lets go of the interpreter again and again."""

    def __call__(self) -> None:
        os.sched_setaffinity(0, CPU)
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))

    def __del__(self) -> None:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        for _ in range(100):
            time.sleep(0.01)


class AsksForACall(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        Variable._execution_engine.queue_callback(AtTheEnd())
        return gradient


dist.init_process_group("nccl")
x = torch.ones(4, device="cuda", requires_grad=True)
os.sched_setaffinity(0, CPU)
AsksForACall.apply(x).sum().backward()
time.sleep(0.1)
dist.all_reduce(x.grad)
print("trained", flush=True)
