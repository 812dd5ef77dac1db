"""What must hold whatever PYTORCH_CUDA_ALLOC_CONF says."""

from __future__ import annotations

import os
import re

import torch
from conformance_checks.shared import assert_consistent, blocks_of
from conformance_rig import MIB, check, raised, take


def unsplit_blocks() -> int:
    return torch.cuda.memory_stats()["oversize_allocations.current"]


@check("settings")
def numbers_hold_with_these_settings() -> None:
    base, unsplit = torch.cuda.memory_allocated(), unsplit_blocks()
    parts = [take(mib) for mib in (3, 64, 130, 20, 0.5)]
    limit = re.search(r"max_split_size_mb:(\d+)", os.environ["PYTORCH_CUDA_ALLOC_CONF"])
    large = sum(limit is not None and part.numel() >= int(limit[1]) * MIB for part in parts)
    assert unsplit_blocks() - unsplit == large, (unsplit_blocks(), unsplit)
    assert sum(part.numel() for part in parts) <= torch.cuda.memory_allocated() - base
    assert_consistent()
    found = blocks_of(torch.cuda.memory_snapshot())
    assert {part.data_ptr() for part in parts} <= found.keys()
    parts.clear()
    assert torch.cuda.memory_allocated() == base
    assert unsplit_blocks() == unsplit
    assert_consistent()


@check("settings", served=None)
def memory_ends_with_these_settings() -> None:
    kept = take(900)
    raised(torch.OutOfMemoryError, lambda: take(1500))
    assert take(700).numel() == 700 * MIB
    del kept
    torch.cuda.empty_cache()
    assert take(1600).numel() == 1600 * MIB
    assert_consistent()
