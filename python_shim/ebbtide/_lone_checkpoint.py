"""torch.distributed.checkpoint for a rank that is alone: it saves and loads its own part.

What all ranks would plan together is what this one plans: copies of its plan for the others would
name its parts several times and theirs never. The checkpoint holds this rank's parts, and the rank
finds them again; it loads its parts of a whole checkpoint, too.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

from ._when_imported import when_imported

_PACKAGE = "torch.distributed.checkpoint"


def _plan_alone(module: ModuleType) -> None:
    torchs = module._DistWrapper.__init__

    def __init__(self: Any, group: Any, use_dist: bool, coordinator_rank: int) -> None:
        torchs(self, group, False, coordinator_rank)

    module._DistWrapper.__init__ = __init__


def _accept_parts(module: ModuleType) -> None:
    """torch checks that the parts of all ranks make whole tensors."""
    module._validate_global_plan = lambda global_plan, metadata: True  # type: ignore[attr-defined]


def install() -> None:
    when_imported(f"{_PACKAGE}.utils", _plan_alone)
    when_imported(f"{_PACKAGE}.default_planner", _accept_parts)
