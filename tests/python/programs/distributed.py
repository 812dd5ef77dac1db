"""Trains a small model with a wrapper of torch's and prints what torch counted, as JSON: ddp, fsdp or compiled.

The process group is torch's fake one: two ranks, of which this process is the first; collectives move nothing.
"""

from __future__ import annotations

import json
import sys

import torch
import torch.distributed
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

STEPS = 20
WIDTH = 1024


def blocks() -> torch.nn.Sequential:
    torch.manual_seed(0)
    layers = [torch.nn.Sequential(torch.nn.Linear(WIDTH, 4 * WIDTH), torch.nn.GELU(), torch.nn.Linear(4 * WIDTH, WIDTH))
              for _ in range(4)]
    return torch.nn.Sequential(*layers).cuda()


def as_it_is(_state, bucket):  # DDP refuses annotations that are text
    """The fake group's own all-reduce has no result, which DDP does not expect."""
    reduced = torch.futures.Future()
    reduced.set_result(bucket.buffer())
    return reduced


def ddp() -> torch.nn.Module:
    model = DistributedDataParallel(blocks(), device_ids=[0])
    model.register_comm_hook(None, as_it_is)
    return model


def fsdp() -> torch.nn.Module:
    model = blocks()
    for layer in model:
        fully_shard(layer)
    return fully_shard(model)


def compiled() -> torch.nn.Module:
    return torch.compile(blocks(), backend="aot_eager")


def main() -> None:
    case = {"ddp": ddp, "fsdp": fsdp, "compiled": compiled}[sys.argv[1]]
    from torch.testing._internal.distributed.fake_pg import FakeStore

    torch.distributed.init_process_group("fake", rank=0, world_size=2, store=FakeStore())
    model = case()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    counted = []
    for _ in range(STEPS):
        torch.cuda.reset_peak_memory_stats()
        model(torch.empty(512, WIDTH, device="cuda")).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        counted.append([torch.cuda.max_memory_allocated(), torch.cuda.memory_allocated()])
    torch.distributed.destroy_process_group()
    served = None
    if "ebbtide" in sys.modules and sys.modules["ebbtide"].is_active():
        served = sys.modules["ebbtide"].stats("cuda:0").settled_planned_share
    print(json.dumps({"counted": counted, "served": served}))


main()
