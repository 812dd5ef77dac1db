"""One rank of a distributed program, of which no other rank runs (`ebbtide dryrun --ranks`).

torch's own process groups work on the stand-in for NCCL, which moves nothing between processes.
What they need besides is a store where the ranks meet (_lone_store). Groups on the CPU (gloo)
become torch's fake ones. Used by the thread that sets the groups up; no threads of its own.
"""

from __future__ import annotations

import atexit
import importlib
import inspect
import os
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import distributed_c10d as groups

from . import _lone_calls, _lone_checkpoint
from ._lone_store import LonePrefixStore, LoneStore, answer_nccl, refuse
from ._rest import rest

_ON_HOST = "lone"  # the name of the backend that stands for gloo
_KNOWN = ("nccl", "gloo", "fake")


def _check_place(size: int, rank: int) -> None:
    """The whole program's group must be the one that the command line asks for."""
    wanted = int(os.environ["WORLD_SIZE"])
    if size != wanted:
        refuse(
            f"the program makes a process group of {size} ranks: run it with --ranks {size}, "
            f"not {wanted}"
        )
    alone = int(os.environ["EBBTIDE_DRYRUN_RANK"])
    if rank != alone:
        refuse(
            f"the program makes rank {rank} in the process of rank {alone}: a dry run's program is "
            "one rank and takes its number from RANK, as under torchrun; it starts no ranks itself"
        )


def _fake_group(options: Any, _backend_options: Any) -> Any:
    from torch._C._distributed_c10d import FakeProcessGroup

    return FakeProcessGroup._create_internal(options.group_rank, options.group_size)


def _kinds(backend: Any) -> dict[str, str]:
    """Kind of device -> backend, of what a program asks for; one that a dry run lacks ends it."""
    kinds = groups.BackendConfig(groups.Backend(str(backend))).get_device_backend_map()
    for kind in map(str, kinds.values()):
        if kind not in _KNOWN:
            refuse(f"the program asks for process groups of {kind}: a dry run has nccl and gloo")
    return {device: str(kind) for device, kind in kinds.items()}


def _without_gloo(kinds: dict[str, str]) -> str:
    """The same backends, with torch's fake group for what would go over the host's network."""
    kinds = {device: _ON_HOST if kind == "gloo" else kind for device, kind in kinds.items()}
    if len(set(kinds.values())) == 1:
        return next(iter(kinds.values()))
    return ",".join(f"{device}:{kind}" for device, kind in kinds.items())


def _nccl_options(given: Any, members: list[int], timeout: Any) -> Any:
    """torch's defaults, and the members of the group where the stand-in for NCCL reads them."""
    options = given
    if options is None:
        options = groups.ProcessGroupNCCL.Options()
        options.is_high_priority_stream = False
        options._timeout = timeout
    options.config.net_name = ",".join(map(str, members))
    return options


def _alone(make: Any) -> Any:
    """torch's maker of groups, for a rank that is alone."""
    signature = inspect.signature(make)

    def make_group(*arguments: Any, **named: Any) -> Any:
        call = signature.bind(*arguments, **named)
        asked = call.arguments
        size, rank, members = (
            asked["group_size"],
            asked["group_rank"],
            asked["global_ranks_in_group"],
        )
        backend = asked["backend"]
        kinds = _kinds(backend)
        if not members:
            _check_place(size, rank)
        asked["backend"] = _without_gloo(kinds)
        if "nccl" in kinds.values():
            asked["backend_options"] = _nccl_options(
                asked.get("backend_options"), members or list(range(size)), asked.get("timeout")
            )
            if rank is not None and rank >= 0:
                answer_nccl(asked["store"], asked["group_name"], rank, size)
        group, store = make(*call.args, **call.kwargs)
        if store is not None and group in groups._world.pg_map:
            # Programs ask by name what they have made.
            its_name = groups.Backend(str(backend))
            groups._world.pg_map[group] = (its_name, store)
            groups._world.pg_backend_config[group] = str(groups.BackendConfig(its_name))
        return group, store

    return make_group


def _end() -> None:
    """At the end of a program torch's threads rest or end before the interpreter does."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()  # virtual time stands still from here on
    rest()
    if dist.is_initialized():
        dist.destroy_process_group()


def install() -> None:
    """Has the process groups of this program be those of a rank that is alone."""
    atexit.register(_end)
    # torch.distributed has a function of that module's name.
    rendezvous = importlib.import_module("torch.distributed.rendezvous")
    for name, stands_for in (
        ("TCPStore", LoneStore),
        ("FileStore", LoneStore),
        ("PrefixStore", LonePrefixStore),
    ):
        for module in (dist, groups, rendezvous):
            if hasattr(module, name):
                setattr(module, name, stands_for)
    dist.Backend.register_backend(_ON_HOST, _fake_group, extended_api=True, devices=["cpu", "cuda"])
    groups._new_process_group_helper = _alone(groups._new_process_group_helper)
    # TORCH_DISTRIBUTED_DEBUG=DETAIL compares what the ranks do.
    groups._create_process_group_wrapper = lambda wrapped_pg, **_named: wrapped_pg
    _lone_calls.install()
    _lone_checkpoint.install()
