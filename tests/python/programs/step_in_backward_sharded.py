"""Two processes train a model that fully_shard splits, with an optimizer's step and inside backward.

step_in_backward_sharded.py FILE    FILE: where the processes meet; prints "same" once for each
"""

from __future__ import annotations

import pathlib
import sys

import ebbtide
import torch
from torch.distributed.fsdp import fully_shard

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from gloo_member import gloo_member  # noqa: E402

PROCESSES = 2


def trained(rank: int, in_backward: bool) -> list[torch.Tensor]:
    torch.manual_seed(1)
    model = torch.nn.Sequential(*(torch.nn.Linear(16, 16) for _ in range(3)))
    for layer in (*model, model):
        fully_shard(layer)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    ebbtide.step_in_backward(optimizer, off=not in_backward)
    for step in range(4):
        torch.manual_seed(2 * step + rank)
        model(torch.randn(4, 16)).square().mean().backward()
        assert all((p.grad is None) == in_backward for p in model.parameters())
        optimizer.step()
        optimizer.zero_grad()
    return [parameter.full_tensor().detach().clone() for parameter in model.parameters()]


def run(rank: int, meeting: str) -> None:
    with gloo_member(rank, PROCESSES, meeting):
        assert all(map(torch.equal, trained(rank, False), trained(rank, True)))
        sys.stdout.write("same\n")  # a line is one write: both processes have one output


if __name__ == "__main__":
    torch.multiprocessing.spawn(run, (sys.argv[1],), nprocs=PROCESSES)
