"""torch.distributed's calls that hand Python objects from rank to rank, for a rank that is alone.

Objects that all ranks gather are copies of this rank's own: torch's own calls do that on the
stand-in for NCCL. What another rank would send comes if that has run before (_lone_mail). If not,
a rank receives what it would send itself: the stages of a pipeline hand on tensors of one shape. A
rank that has sent nothing yet keeps what it has, and the user is told so once.
"""

from __future__ import annotations

import functools
import pickle
import sys
import zlib
from collections.abc import Callable
from typing import Any

import torch.distributed as dist
from torch.distributed import distributed_c10d as groups

from . import _lone_mail

_told: set[str] = set()
_sent: list[Any] = []  # the last that this rank has sent, if any
_REMEDIES = {
    "recv_object_list": "; a PipelineStage is better told its input_args and output_args than asked"
}


def _tell(call: str, sender: int) -> None:
    if call in _told:
        return
    _told.add(call)
    print(
        f"ebbtide dryrun: {call}: rank {sender} does not run, so rank {dist.get_rank()} keeps the "
        f"objects that it has{_REMEDIES.get(call, '')} (--rank all runs one after the other)",
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


def _name(group: Any) -> str:
    """The same in every rank."""
    members = ",".join(map(str, dist.get_process_group_ranks(group)))
    return f"{zlib.crc32(members.encode()):x}"


def _fill(
    objects: list[Any],
    call: str,
    sender: int,
    receiver: int | str,
    otherwise: list[Any] | None = None,
) -> None:
    """What the sender handed on when it ran; else the other objects; else the rank's own stay."""
    given = _lone_mail.collect(call, sender, receiver) or otherwise
    if given is None:
        return _tell(call, sender)
    objects[:] = given


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
        if groups._rank_not_in_group(group):
            return torchs(object_list, src, group, device, group_src, **named)
        if sender != dist.get_rank():
            return _fill(object_list, "broadcast_object_list", sender, _name(group))
        _lone_mail.post("broadcast_object_list", sender, _name(group), object_list)
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
            place = f"{_name(group)}.{own}"
            return _fill(scatter_object_output_list, "scatter_object_list", sender, place)
        given, ranks = scatter_object_input_list, dist.get_world_size(group)
        if not isinstance(given, list) or len(given) != ranks:
            raise ValueError(
                "scatter_object_input_list needs one object for each rank of the group"
            )
        for rank, item in enumerate(given):
            _lone_mail.post("scatter_object_list", sender, f"{_name(group)}.{rank}", [item])
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
        own = pickle.loads(pickle.dumps(_sent)) if len(_sent) == len(object_list) else None
        _fill(object_list, "recv_object_list", sender, dist.get_rank(), own)
        return sender

    return recv_object_list


def _send(torchs: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(torchs)
    def send_object_list(
        object_list: list[Any],
        dst: int | None = None,
        group: Any = None,
        *arguments: Any,
        **named: Any,
    ) -> None:
        receiver = _sender(group, dst, named.get("group_dst"), None)
        if receiver is not None:
            _lone_mail.post("recv_object_list", dist.get_rank(), receiver, object_list)
        _sent[:] = object_list
        torchs(object_list, dst, group, *arguments, **named)

    return send_object_list


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
    "send_object_list": _send,
    "gather_object": _gather,
    "monitored_barrier": _monitored,
}


def install() -> None:
    """Has torch.distributed's functions be the ones above."""
    for name, wrapped in _CALLS.items():
        function = wrapped(getattr(groups, name))
        for module in (groups, dist):
            setattr(module, name, function)
