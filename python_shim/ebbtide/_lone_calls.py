"""torch.distributed's calls that hand Python objects from rank to rank, for a rank that is alone.

Objects that all ranks gather are copies of this rank's own: torch's own calls do that on the
stand-in for NCCL. What another rank would send does not come: the rank keeps what it has, and the
user is told so once.
"""

from __future__ import annotations

import functools
import pickle
import sys
from collections.abc import Callable
from typing import Any

import torch.distributed as dist
from torch.distributed import distributed_c10d as groups

_told: set[str] = set()


def _tell(call: str, sender: int) -> None:
    if call in _told:
        return
    _told.add(call)
    print(
        f"ebbtide dryrun: {call}: rank {sender} does not run, so rank {dist.get_rank()} keeps the "
        "objects that it has",
        file=sys.stderr,
        flush=True,
    )


def _sender(
    group: Any, named_global: int | None, named_group: int | None, otherwise: int | None
) -> int | None:
    """The global rank of who sends."""
    if named_group is not None:
        return dist.get_global_rank(group or groups._get_default_group(), named_group)
    return named_global if named_global is not None else otherwise


def _broadcast(torchs: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(torchs)
    def broadcast_object_list(
        object_list: list[Any],
        src: int | None = None,
        group: Any = None,
        device: Any = None,
        group_src: int | None = None,
        **named: Any,
    ) -> None:
        sender = _sender(group, src, group_src, 0)
        if sender != dist.get_rank() and not groups._rank_not_in_group(group):
            return _tell("broadcast_object_list", sender)
        return torchs(object_list, src, group, device, group_src, **named)

    return broadcast_object_list


def _scatter(torchs: Callable[..., Any]) -> Callable[..., Any]:
    """torch's call reads its own part from what a group on the host leaves empty."""

    @functools.wraps(torchs)
    def scatter_object_list(
        scatter_object_output_list: list[Any],
        scatter_object_input_list: list[Any] | None = None,
        src: int | None = None,
        group: Any = None,
        group_src: int | None = None,
    ) -> None:
        sender = _sender(group, src, group_src, 0)
        own = dist.get_rank(group)
        if own < 0 or not scatter_object_output_list:
            return torchs(
                scatter_object_output_list, scatter_object_input_list, src, group, group_src
            )
        if sender != dist.get_rank():
            return _tell("scatter_object_list", sender)
        given, ranks = scatter_object_input_list, dist.get_world_size(group)
        if not isinstance(given, list) or len(given) != ranks:
            raise ValueError(
                "scatter_object_input_list needs one object for each rank of the group"
            )
        scatter_object_output_list[0] = pickle.loads(pickle.dumps(given[own]))

    return scatter_object_list


def _receive(torchs: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(torchs)
    def recv_object_list(
        object_list: list[Any],
        src: int | None = None,
        group: Any = None,
        device: Any = None,
        **named: Any,
    ) -> int:
        sender = _sender(
            group, src, named.get("group_src"), (dist.get_rank() + 1) % dist.get_world_size()
        )
        _tell("recv_object_list", sender)
        return sender

    return recv_object_list


def _gather(torchs: Callable[..., Any]) -> Callable[..., Any]:
    """torch's call gathers by sends and receives: what it would unpickle is not there."""

    @functools.wraps(torchs)
    def gather_object(
        obj: Any,
        object_gather_list: list[Any] | None = None,
        dst: int | None = None,
        group: Any = None,
        group_dst: int | None = None,
    ) -> None:
        if groups._rank_not_in_group(group):
            return
        receiver = _sender(group, dst, group_dst, 0)
        if receiver != dist.get_rank():
            return torchs(obj, object_gather_list, dst, group, group_dst)
        groups._validate_output_list_for_rank(receiver, receiver, object_gather_list)
        pickled = pickle.dumps(obj)
        object_gather_list[:] = [pickle.loads(pickled) for _ in range(dist.get_world_size(group))]

    return gather_object


def _monitored(torchs: Callable[..., Any]) -> Callable[..., Any]:
    """gloo's alone: whoever is waited for has been there."""

    @functools.wraps(torchs)
    def monitored_barrier(group: Any = None, *arguments: Any, **named: Any) -> None:
        if dist.get_backend(group) != "gloo":
            torchs(group, *arguments, **named)  # says what is wrong

    return monitored_barrier


_CALLS = {
    "broadcast_object_list": _broadcast,
    "scatter_object_list": _scatter,
    "recv_object_list": _receive,
    "gather_object": _gather,
    "monitored_barrier": _monitored,
}


def install() -> None:
    """Has torch.distributed's functions be the ones above."""
    for name, wrapped in _CALLS.items():
        function = wrapped(getattr(groups, name))
        for module in (groups, dist):
            setattr(module, name, function)
