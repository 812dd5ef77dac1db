"""Trains a tiny model in two processes over gloo, whole and offloaded, and compares the parameters.

    offload_distributed.py ddp|fsdp ALPHA      prints "same" or the first parameter that differs
"""

from __future__ import annotations

import faulthandler
import os
import pathlib
import sys
import tempfile

import torch
import torch.multiprocessing as mp

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import ebbtide  # noqa: E402
import offload_models as models  # noqa: E402
from gloo_member import gloo_member  # noqa: E402

PROCESSES, STEPS = 2, 3


def make(kind: str) -> torch.nn.Module:
    model = models.make("llama", torch.float32)
    if kind == "ddp":
        return torch.nn.parallel.DistributedDataParallel(model)
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cpu", (PROCESSES,))
    for layer in models.layers_of(model):
        fully_shard(layer, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def train(model: torch.nn.Module, rank: int) -> dict[str, torch.Tensor]:
    """Steps of two micro-batches each; only the second synchronises, as trainers do."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for step in range(STEPS):
        for micro in range(2):
            last = micro == 1
            if hasattr(model, "set_requires_gradient_sync"):
                model.set_requires_gradient_sync(last)
            elif hasattr(model, "require_backward_grad_sync"):
                model.require_backward_grad_sync = last
            ids = models.tokens(29, 2, seed=100 * rank + 10 * step + micro)
            (model(input_ids=ids, labels=ids).loss / 2).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    full = {name: getattr(p, "full_tensor", lambda p=p: p)() for name, p in model.named_parameters()}
    return {name: parameter.detach().clone() for name, parameter in full.items()}


def work(rank: int, kind: str, alpha: float, meeting: str) -> None:
    faulthandler.enable()  # a process that aborts says where it was
    torch.set_num_threads(1)
    with gloo_member(rank, PROCESSES, meeting):
        whole = train(make(kind), rank)
        model = make(kind)
        ebbtide.offload(model, alpha=alpha, mini_sequence=8, keep_last=0, host="64MiB", strict=True)
        found = train(model, rank)
        counts = ebbtide.stats().offload.models[0].layers
        assert [layer.attention_forwards for layer in counts] == [2 * STEPS] * len(counts), counts
        wrong = [n for n in whole if not torch.allclose(found[n], whole[n], rtol=1e-3, atol=1e-5)]
        if rank == 0:
            print(wrong[0] if wrong else "same", flush=True)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        arguments = (sys.argv[1], float(sys.argv[2]), str(pathlib.Path(folder) / "meeting"))
        mp.spawn(work, arguments, nprocs=PROCESSES)
