"""One rank of a distributed program, of which no other rank runs (`ebbtide dryrun --ranks`).

torch's own process groups work on the stand-in for NCCL, which moves nothing between processes. What they need
besides is a store where the ranks meet: here it answers for the ranks that never come. Groups on the CPU
(gloo) become torch's fake ones. Used by the thread that sets the groups up; no threads of its own.
"""

from __future__ import annotations

import atexit
import importlib
import os
import sys
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import distributed_c10d as groups

from ._errors import EbbtideError

_NCCL_ID_BYTES = 128
_ON_HOST = "lone"  # the name of the backend that stands for gloo
_stores: list[dist.Store] = []  # C++ keeps no reference to what Python adds to them


class LoneStore(dist.Store):
    """A key-value store that waits for nobody: what another rank would have set reads as zeros.

    Takes the arguments of any of torch's stores, and ignores them.
    """

    def __init__(self, *_arguments: Any, **_named: Any) -> None:
        super().__init__()
        self._values: dict[str, bytes] = {}
        _stores.append(self)

    def set(self, key: str, value: str | bytes) -> None:
        self._values[key] = value.encode() if isinstance(value, str) else bytes(value)

    def get(self, key: str) -> bytes:
        return self._values.get(key, bytes(_NCCL_ID_BYTES))

    def add(self, key: str, value: int) -> int:
        total = int(self._values.get(key, b"0")) + value
        self._values[key] = str(total).encode()
        return total

    def compare_set(self, key: str, expected_value: str, desired_value: str) -> bytes:
        if self._values.get(key, b"") == expected_value.encode():
            self._values[key] = desired_value.encode()
        return self._values.get(key, expected_value.encode())

    def check(self, keys: list[str]) -> bool:
        return all(key in self._values for key in keys)

    def wait(self, *_arguments: Any) -> None:
        pass

    def delete_key(self, key: str) -> bool:
        return self._values.pop(key, None) is not None

    def num_keys(self) -> int:
        return len(self._values)

    def set_timeout(self, _timeout: Any) -> None:
        pass


def _check_size(size: int) -> None:
    wanted = int(os.environ["WORLD_SIZE"])
    if size == wanted:
        return
    line = f"the program makes a process group of {size} ranks: run it with --ranks {size}, not {wanted}"
    print(f"ebbtide dryrun: {line}", file=sys.stderr, flush=True)
    raise SystemExit(EbbtideError.exit_code)


def _fake_group(options: Any, _backend_options: Any) -> Any:
    from torch._C._distributed_c10d import FakeProcessGroup

    return FakeProcessGroup._create_internal(options.group_rank, options.group_size)


def _without_gloo(backend: Any) -> str:
    """The same backends, with torch's fake group for what would go over the host's network."""
    chosen = groups.BackendConfig(groups.Backend(str(backend))).get_device_backend_map()
    kinds = {device: _ON_HOST if kind == "gloo" else str(kind) for device, kind in chosen.items()}
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


def _with_members(make: Any) -> Any:
    """torch's maker of groups, with the ranks of each written where the stand-in for NCCL reads them."""

    def make_group(
        size: int, rank: int, members: list[int], backend: Any, store: Any, *more: Any, **named: Any
    ) -> Any:
        if not members:
            _check_size(size)
        chosen = _without_gloo(backend)
        if "nccl" in chosen:
            members_or_all = members or list(range(size))
            named["backend_options"] = _nccl_options(
                named.get("backend_options"), members_or_all, named.get("timeout")
            )
        return make(size, rank, members, chosen, store, *more, **named)

    return make_group


def _end() -> None:
    """What a program leaves to the exit of a process: virtual time stands still there, and torch's threads would wait."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    if dist.is_initialized():
        dist.destroy_process_group()


def install() -> None:
    """Has the process groups of this program be those of a rank that is alone."""
    atexit.register(_end)
    # torch.distributed has a function of that module's name.
    rendezvous = importlib.import_module("torch.distributed.rendezvous")
    for name in ("TCPStore", "FileStore"):
        for module in (dist, groups, rendezvous):
            if hasattr(module, name):
                setattr(module, name, LoneStore)
    dist.Backend.register_backend(_ON_HOST, _fake_group, extended_api=True, devices=["cpu", "cuda"])
    groups._new_process_group_helper = _with_members(groups._new_process_group_helper)
