"""What Ebbtide would have saved: the planner on the blocks of a recording."""

from __future__ import annotations

import dataclasses
import io

import numpy as np

from .._problem import Options, Planned, Problem
from ._figures import peak_reserved
from ._model import GRANULE, Device


@dataclasses.dataclass(frozen=True)
class Saving:
    """Bytes. `reserved` is None where the recording does not tell what was held."""

    reserved: int | None
    plan: int
    lower_bound: int
    is_lowest: bool
    problem: Problem = dataclasses.field(repr=False, compare=False)  # planned: it knows each block's place

    def offsets(self, blocks: int) -> np.ndarray:
        """The planned place of each block, -1 where it has none."""
        offsets = np.full(blocks, -1, np.int64)
        rows = self.problem.csv().split(b"\n")
        place = rows[0].split(b",").index(b"offset")
        for row in rows[1:-1]:
            cells = row.split(b",")
            offsets[int(cells[0])] = int(cells[place])
        return offsets

    @property
    def share(self) -> float | None:
        """Of what was reserved; negative where the plan needs more."""
        return None if not self.reserved else 1 - self.plan / self.reserved


def saving(device: Device, time_limit: float) -> Saving | None:
    """None without a block, or when no time is given. All streams are planned as one, as `ebbtide plan` does."""
    if not time_limit or not len(device.blocks):
        return None
    problem = Problem(problem_csv(device), f"the blocks of {device.name}")
    planned: Planned = problem.plan(Options(time_limit=time_limit))
    if planned.height is None:
        return None
    return Saving(peak_reserved(device), planned.height, planned.lower_bound, planned.is_lowest, problem)


def problem_csv(device: Device) -> bytes:
    """The blocks as minimalloc's CSV: lives in states, sizes rounded to what the arena aligns to."""
    blocks = device.blocks
    rounded = -(-blocks.held // GRANULE) * GRANULE
    text = io.StringIO()
    text.write("id,lower,upper,size,alignment\n")
    rows = zip(blocks.birth.tolist(), blocks.death.tolist(), rounded.tolist(), strict=True)
    for number, (birth, death, size) in enumerate(rows):
        if size and death > birth:
            text.write(f"{number},{birth},{death},{size},{GRANULE}\n")
    return text.getvalue().encode()
