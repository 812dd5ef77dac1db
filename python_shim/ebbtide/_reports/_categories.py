"""What blocks are for, from the phase they were made in and how long they lived.

A block *outlives* its phase if it is alive when the first block of another phase is made, or at the end. What a
forward makes and outlives it is an activation, of a backward a gradient, of an optimizer its state; what does not
is a workspace. What was there before the first forward, and stays, is a parameter. Nothing else is guessed.
"""

from __future__ import annotations

import numpy as np

from ._model import Blocks, Category, Phase

_OUTLIVING = {
    Phase.SETUP: Category.PARAMETERS,
    Phase.FORWARD: Category.ACTIVATIONS,
    Phase.BACKWARD: Category.GRADIENTS,
    Phase.OPTIMIZER: Category.OPTIMIZER_STATE,
}


def categories_of(blocks: Blocks, states: int) -> np.ndarray:
    """One Category for each block."""
    phase = blocks.phase
    category = np.full(len(blocks), Category.UNKNOWN, np.int8)
    outlives = blocks.death > _ends_of_phases(blocks, states)
    outlives |= blocks.death >= states
    for made_in, kept in _OUTLIVING.items():
        category[phase == made_in] = Category.WORKSPACES
        category[(phase == made_in) & outlives] = kept
    forwards = np.flatnonzero(phase == Phase.FORWARD)
    first_forward = blocks.birth[forwards[0]] if len(forwards) else states
    late = (blocks.birth > first_forward) & (blocks.death < states)
    category[(category == Category.PARAMETERS) & late] = Category.UNKNOWN  # an input, for one
    category[(phase == Phase.UNKNOWN) & (blocks.birth == 0)] = Category.FROM_BEFORE
    return category


def _ends_of_phases(blocks: Blocks, states: int) -> np.ndarray:
    """For each block, when the first block of another phase is made after it; `states` if none is."""
    ends = np.full(len(blocks), states, np.int64)
    known = np.flatnonzero(blocks.phase != Phase.UNKNOWN)
    if not len(known):
        return ends
    phase = blocks.phase[known]
    changes = np.flatnonzero(phase[1:] != phase[:-1]) + 1
    following = np.searchsorted(changes, np.arange(len(known)), side="right")
    born = np.append(blocks.birth[known[changes]], states)
    ends[known] = born[following]
    return ends
