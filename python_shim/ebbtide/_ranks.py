"""Which ranks of a distributed program `ebbtide dryrun --ranks` runs, and what each of them is told.

Each rank is a process of its own, one after the other; no two of them exchange anything (_lone_rank).
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

_MOST_RANKS = 65536
_LAUNCHERS = ("torchrun", "accelerate", "deepspeed", "mpirun", "mpiexec", "srun")
_LAUNCHER_MODULES = ("torch.distributed.run", "torch.distributed.launch")


class RanksError(Exception):
    """A wrong number of ranks, or a command that starts ranks itself, told in one line."""


def chosen(ranks: int, rank: str) -> list[int]:
    """The ranks to run: `rank` is a number or "all". Raises RanksError."""
    if not 1 <= ranks <= _MOST_RANKS:
        raise RanksError(f"--ranks {ranks}: allowed is 1 to {_MOST_RANKS}")
    if rank == "all":
        return list(range(ranks))
    if not rank.isdecimal() or int(rank) >= ranks:
        raise RanksError(f"--rank {rank}: allowed is 0 to {ranks - 1}, or all")
    return [int(rank)]


def check_command(command: Sequence[str]) -> None:
    """Raises RanksError for what would start a process for each rank."""
    launcher = pathlib.Path(command[0]).name
    if launcher not in _LAUNCHERS:
        launcher = next((word for word in command[:4] if word in _LAUNCHER_MODULES), "")
    if launcher:
        raise RanksError(
            f"{launcher} starts the ranks itself: with --ranks give the program alone, "
            "e.g. -- python train.py"
        )


def variables(rank: int, ranks: int, devices_per_node: int) -> dict[str, str]:
    """What a launcher like torchrun would set for this rank, and what makes it be alone."""
    local = min(ranks, devices_per_node)
    return {
        "RANK": str(rank),
        "WORLD_SIZE": str(ranks),
        "LOCAL_RANK": str(rank % devices_per_node),
        "LOCAL_WORLD_SIZE": str(local),
        "GROUP_RANK": str(rank // devices_per_node),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "29500",
        "EBBTIDE_DRYRUN_RANK": str(rank),
        "EBBTIDE_DRYRUN_RANKS": str(ranks),
        # Ebbtide's entry point makes torch's process groups those of a rank that is alone.
        "TORCH_DEVICE_BACKEND_AUTOLOAD": "1",
        # torch's threads that watch for ranks that hang, and what they would write: none hangs.
        "TORCH_NCCL_ENABLE_MONITORING": "0",
        "TORCH_NCCL_DUMP_ON_TIMEOUT": "0",
        "TORCH_NCCL_PROPAGATE_ERROR": "0",
    }
