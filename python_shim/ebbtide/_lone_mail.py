"""Objects that a rank has handed on, for those that run after it (`ebbtide dryrun --rank all`).

A file for each message, in a folder that lives as long as the dry run. Counts are the process's:
the n-th message from a rank is the n-th that another one asks it for.
"""

from __future__ import annotations

import collections
import os
import pathlib
import pickle
from typing import Any

FOLDER = "EBBTIDE_DRYRUN_MAIL"
_posted: collections.Counter[str] = collections.Counter()
_collected: collections.Counter[str] = collections.Counter()


def _path(counts: collections.Counter[str], address: str) -> pathlib.Path | None:
    folder = os.environ.get(FOLDER)
    if not folder:
        return None
    counts[address] += 1
    return pathlib.Path(folder) / f"{address}-{counts[address]}"


def post(call: str, sender: int, receiver: int | str, objects: list[Any]) -> None:
    """Keeps what this rank hands to `receiver`: a rank, or what names a group."""
    path = _path(_posted, f"{call}-{sender}-{receiver}")
    if path is not None:
        path.write_bytes(pickle.dumps(objects))


def collect(call: str, sender: int, receiver: int | str) -> list[Any] | None:
    """The next of these; None if the sender has not run, or handed on nothing more."""
    path = _path(_collected, f"{call}-{sender}-{receiver}")
    if path is None or not path.exists():
        return None
    objects: list[Any] = pickle.loads(path.read_bytes())
    return objects
