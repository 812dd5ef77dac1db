"""A program that saves and loads sharded checkpoints as users do: nothing in it knows of a dry run. Prints JSON.

Its argument is a folder. A whole checkpoint that another program wrote there (`whole`) is loaded, too.
"""

from __future__ import annotations

import json
import os
import sys

import torch
import torch.distributed as dist
from torch.distributed import checkpoint
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_state_dict,
    set_model_state_dict,
    set_state_dict,
)
from torch.distributed.fsdp import fully_shard


class Training(checkpoint.stateful.Stateful):
    def __init__(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self.model, self.optimizer = model, optimizer

    def state_dict(self) -> dict:
        model, optimizer = get_state_dict(self.model, self.optimizer)
        return {"model": model, "optimizer": optimizer}

    def load_state_dict(self, state: dict) -> None:
        set_state_dict(
            self.model, self.optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"]
        )


def own_bytes(folder: str) -> int:
    return sum(os.path.getsize(os.path.join(folder, name)) for name in os.listdir(folder))


def from_rank_0(model: torch.nn.Module) -> list[int]:
    """The first weight of a state that rank 0 alone has."""
    whole = {name: torch.full(weight.shape, 7.0) for name, weight in model.state_dict().items()}
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
    set_model_state_dict(model, whole if dist.get_rank() == 0 else {}, options=options)
    return list(get_model_state_dict(model)["0.weight"].shape)


def main() -> None:
    folder = sys.argv[1]
    dist.init_process_group("cpu:gloo,cuda:nccl")
    torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    model = fully_shard(torch.nn.Sequential(torch.nn.Linear(256, 512), torch.nn.Linear(512, 256)).cuda())
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(4, 256, device="cuda")).sum().backward()
    optimizer.step()
    own = os.path.join(folder, f"rank{dist.get_rank()}")
    checkpoint.save({"training": Training(model, optimizer)}, checkpoint_id=own)
    checkpoint.load({"training": Training(model, optimizer)}, checkpoint_id=own)
    later = checkpoint.async_save({"training": Training(model, optimizer)}, checkpoint_id=own + "later")
    later.result()
    checkpoint.load(get_model_state_dict(model), checkpoint_id=os.path.join(folder, "whole"))
    shape = from_rank_0(model) if "from_rank_0" in sys.argv else None
    print(json.dumps([own_bytes(own), own_bytes(own + "later"), shape]))
    dist.destroy_process_group()


main()
