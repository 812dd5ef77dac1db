"""A torch.distributed program as users write it: nothing in it knows of a dry run. Prints JSON.

values: collectives on numbers that are computed, meshes, objects. ddp: replicas. 2d: tensor parallel within FSDP2.
"""

from __future__ import annotations

import json
import os
import sys

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

WIDTH = 1024


def values() -> dict:
    rank, ranks = dist.get_rank(), dist.get_world_size()
    numbers = torch.arange(ranks, device="cuda") + 1
    summed, most = numbers.clone(), numbers.clone()
    dist.all_reduce(summed)
    dist.all_reduce(most, op=dist.ReduceOp.MAX)
    scattered = numbers.new_empty(1)
    dist.reduce_scatter_tensor(scattered, numbers)
    sent = numbers.new_empty(ranks)
    dist.all_to_all_single(sent, numbers)
    mesh = init_device_mesh("cuda", (2, ranks // 2), mesh_dim_names=("replicas", "parts"))
    replicas = mesh["replicas"].get_group()
    dist.all_reduce(summed, group=replicas)
    split = DTensor.from_local(numbers, mesh["parts"], [Shard(0)])
    dist.barrier()
    return {
        "rank": rank,
        "summed": summed.tolist(),
        "most": most.tolist(),
        "scattered": scattered.tolist(),
        "sent": sent.tolist(),
        "split": [(split * 3).to_local().tolist(), split.shape[0]],
        "replicas": dist.get_process_group_ranks(replicas),
        "device": torch.cuda.current_device(),
        **objects(rank, ranks),
    }


def objects(rank: int, ranks: int) -> dict:
    """What programs hand from rank to rank beside tensors, and a group of the host's."""
    host = dist.new_group(backend="gloo")
    dist.monitored_barrier(host)
    every = [None] * ranks
    dist.all_gather_object(every, {"rank": rank})
    settings = [{"lr": 0.1}, "run 7"] if rank == 0 else ["mine", "own"]
    dist.broadcast_object_list(settings, src=0)
    part = ["mine"]
    dist.scatter_object_list(part, list(range(ranks)) if rank == 0 else None, src=0)
    gathered = [None] * ranks if rank == ranks // 2 else None
    dist.gather_object(rank, gathered, dst=ranks // 2, group=host)
    store = dist.TCPStore("localhost", 4711, ranks, is_master=rank == 0)
    store.set("host", "here")
    store.wait(["others"])
    return {
        "backends": [dist.get_backend(), dist.get_backend(host)],
        "every": every,
        "settings": settings,
        "part": part,
        "gathered": gathered,
        "stored": store.get("host").decode(),
        "other": dist.new_group([ranks - 1]) == dist.GroupMember.NON_GROUP_MEMBER,
    }


def blocks() -> torch.nn.Sequential:
    layers = [torch.nn.Sequential(torch.nn.Linear(WIDTH, 4 * WIDTH), torch.nn.Linear(4 * WIDTH, WIDTH)) for _ in range(4)]
    return torch.nn.Sequential(*layers).cuda()


def replicated() -> torch.nn.Module:
    return torch.nn.parallel.DistributedDataParallel(blocks(), device_ids=[torch.cuda.current_device()])


def sharded() -> torch.nn.Module:
    """Each layer's products split over two ranks, and its weights' parts over the replicas of these."""
    model = blocks()
    mesh = init_device_mesh("cuda", (dist.get_world_size() // 2, 2), mesh_dim_names=("data", "tensor"))
    for layer in model:
        parallelize_module(layer, mesh["tensor"], {"0": ColwiseParallel(), "1": RowwiseParallel()})
        fully_shard(layer, mesh=mesh["data"])
    return fully_shard(model, mesh=mesh["data"])


def train(make) -> dict:
    model = make()
    parameters = sum(p.to_local().numel() if hasattr(p, "to_local") else p.numel() for p in model.parameters())
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(3):
        model(torch.empty(2048, WIDTH, device="cuda")).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return {"parameters": parameters, "held": torch.cuda.memory_allocated()}


def main() -> None:
    dist.init_process_group("cpu:gloo,cuda:nccl")
    torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    make = {"ddp": replicated, "2d": sharded}.get(sys.argv[1])
    print(json.dumps(values() if make is None else train(make)))
    dist.destroy_process_group()


main()
