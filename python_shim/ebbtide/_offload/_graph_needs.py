"""Which results in a graph its backward does not need: those that no node saves."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

# Names of nodes that save nothing of what they are given, but a mask that does not depend on it.
_SAVE_NOTHING = frozenset(
    f"{name}Backward{variant}"
    for name in (
        *("Add", "Sub", "Neg", "Cat", "Stack", "Clone", "ToCopy", "NativeDropout", "View", "UnsafeView", "ReshapeAlias"),
        *("Transpose", "T", "Permute", "Slice", "Select", "Split", "SplitWithSizes", "Expand", "Unsqueeze", "Squeeze"),
    )
    for variant in (0, 1)
)


def needless(roots: Iterable[Any]) -> set[Any]:
    """Nodes below the roots whose results may be anything, if those of the roots may."""
    users = _users(roots)
    found: set[Any] = set()
    waiting = [root for root in users if not users[root]]
    while waiting:
        node = waiting.pop()
        found.add(node)
        if _saves_nothing(node):
            waiting += [
                following
                for following, _ in node.next_functions
                if following is not None
                and all(user in found and _saves_nothing(user) for user in users[following])
            ]
    return found


def reachable(roots: Iterable[Any]) -> set[Any]:
    """Nodes that have a part in the roots."""
    return set(_users(roots))


def _users(roots: Iterable[Any]) -> dict[Any, list[Any]]:
    """Of each node from the roots on, those that take its results."""
    users: dict[Any, list[Any]] = {root: [] for root in roots}
    waiting = list(users)
    while waiting:
        node = waiting.pop()
        for following, _ in node.next_functions:
            if following is None:
                continue
            if following not in users:
                users[following] = []
                waiting.append(following)
            users[following].append(node)
    return users


def _saves_nothing(node: Any) -> bool:
    """Of what it is given with a graph."""
    name = node.name()
    if name == "MulBackward0":  # the other factor, and that has none
        return sum(following is not None for following, _ in node.next_functions) == 1
    if name == "DivBackward0":
        return [following is not None for following, _ in node.next_functions] == [True, False]
    return name in _SAVE_NOTHING
