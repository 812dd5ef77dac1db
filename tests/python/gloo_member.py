"""One of several processes that meet over gloo, in the tests."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

import torch.distributed as dist


@contextlib.contextmanager
def gloo_member(rank: int, processes: int, meeting: str) -> Iterator[None]:
    """A group over gloo; the process ends with it, with status 0, or with the error that was raised inside.

    It does not wait for the interpreter to end: gloo's own threads outlive destroy_process_group (torch 2.11), and one
    that gives its last collective's tensors back while Python ends takes the GIL in a destructor: an abort
    ("terminate called without an active exception").

    meeting: a file that does not exist yet, where the processes find each other
    """
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=processes)
    yield
    dist.destroy_process_group()
    sys.stdout.flush()
    os._exit(0)
