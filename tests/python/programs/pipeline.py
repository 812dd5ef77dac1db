"""A pipeline of stages as users write it, which tell each other their shapes. Prints JSON."""

from __future__ import annotations

import json
import os
import sys

import torch
import torch.distributed as dist
from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleInterleaved1F1B

WIDTH, ROWS, MICRO_BATCHES = 256, 32, 4


def stage(index: int, stages: int, device: torch.device, told: bool) -> PipelineStage:
    first = torch.nn.Linear(WIDTH, 2 * WIDTH) if index == 0 else torch.nn.Linear(2 * WIDTH, 2 * WIDTH)
    rows = ROWS // MICRO_BATCHES
    shapes = {
        "input_args": (torch.empty(rows, first.in_features, device="meta"),),
        "output_args": (torch.empty(rows, 2 * WIDTH, device="meta"),),
    }
    return PipelineStage(first.to(device), index, stages, device, **(shapes if told else {}))


def main() -> None:
    kind = sys.argv[1]
    dist.init_process_group("nccl")
    rank, ranks = dist.get_rank(), dist.get_world_size()
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    torch.cuda.set_device(device)
    many = 2 if kind == "interleaved" else 1
    stages = [stage(rank + i * ranks, many * ranks, device, kind == "told") for i in range(many)]
    if many == 1:
        schedule = Schedule1F1B(stages[0], MICRO_BATCHES, loss_fn=torch.nn.functional.mse_loss)
    else:
        schedule = ScheduleInterleaved1F1B(stages, MICRO_BATCHES, loss_fn=torch.nn.functional.mse_loss)
    optimizer = torch.optim.SGD([p for one in stages for p in one.submod.parameters()], 0.1)
    losses: list[torch.Tensor] = []
    last = {"target": torch.zeros(ROWS, 2 * WIDTH, device=device), "losses": losses} if rank == ranks - 1 else {}
    for _ in range(2):
        schedule.step(*([torch.randn(ROWS, WIDTH, device=device)] if rank == 0 else []), **last)
        optimizer.step()
        optimizer.zero_grad()
    print(json.dumps([rank, [list(meta.shape) for meta in stages[-1].inputs_meta], len(losses)]))
    dist.destroy_process_group()


main()
