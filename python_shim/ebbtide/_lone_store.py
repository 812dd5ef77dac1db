"""The store of a rank that is alone: it waits for nobody.

torch's own HashStore, in C++: torch's threads (watchdogs of process groups) ask it without Python,
so none of them waits for the interpreter while that ends. What a program itself reads in Python and
another rank would have set ends in one line.
"""

from __future__ import annotations

import datetime
import sys
from typing import Any, NoReturn

import torch.distributed as dist

from ._errors import EbbtideError

_NCCL_ID = "\0" * 128
_MOST_COMMUNICATORS = 16  # of one group: one for each device of a process
# torch's C++ parts wait for no other rank but for what answer_nccl() gives. Whatever else they
# wait for is an error soon.
_WAIT = datetime.timedelta(seconds=1)


def refuse(text: str) -> NoReturn:
    """Ends the program with one line: it cannot run without its other ranks."""
    print(f"ebbtide dryrun: {text}", file=sys.stderr, flush=True)
    raise SystemExit(EbbtideError.exit_code)


class _Waitless:
    """What programs call on a store in Python, without waiting."""

    def get(self, key: str) -> bytes:
        if not self.check([key]):
            refuse(
                f"the program reads {key!r} from its store, which another rank sets, and no other "
                "runs: set it before, or run the rank that does (--rank)"
            )
        return super().get(key)

    def multi_get(self, keys: list[str]) -> list[bytes]:
        return [self.get(key) for key in keys]

    def wait(self, *_arguments: Any) -> None:
        """Whoever is waited for has been there."""

    def set_timeout(self, _timeout: Any) -> None:
        """Nothing takes time."""


class LonePrefixStore(_Waitless, dist.PrefixStore):
    """A PrefixStore over a LoneStore."""


class LoneStore(_Waitless, dist.HashStore):
    """Stands for any of torch's stores: takes the arguments of each, and meets nobody."""

    def __init__(self, host_name: Any = "", port: Any = 0, *_arguments: Any, **_named: Any) -> None:
        super().__init__()
        super().set_timeout(_WAIT)
        self.host, self.port = host_name, port  # as a TCPStore has them


def answer_nccl(store: dist.Store, group: str, rank: int, ranks: int) -> None:
    """Sets NCCL's identifiers, which rank 0 of a group, or the first of a pair, tells the others.

    Under the names that torch's ProcessGroupNCCL gives them: a counter, two ranks in order, or, in a
    large group with several roots, the number of the root.
    """
    of_group = dist.PrefixStore("cuda/", dist.PrefixStore(f"{group}/", store))
    for number in range(_MOST_COMMUNICATORS):
        of_group.set(str(number), _NCCL_ID)
    for other in range(ranks):
        of_group.set(f"{min(rank, other)}:{max(rank, other)}", _NCCL_ID)
        of_group.set(f"UniqueNCCLID:{other}", _NCCL_ID)
