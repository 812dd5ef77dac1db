"""What Ebbtide asks of torch's own CUDA allocator, which serves whatever a plan does not.

Nothing here may initialise CUDA: that would break programs that fork after `import torch`.
"""

from __future__ import annotations

import os

import torch

# torch reads the first of these that is set, and only that one.
_SETTINGS = ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF", "PYTORCH_ALLOC_CONF")


def settings() -> str:
    return next((os.environ[name] for name in _SETTINGS if name in os.environ), "")


def backend() -> str:
    """`native` or `cudaMallocAsync`."""
    return torch.cuda.get_allocator_backend()


def use_expandable_segments() -> bool:
    """Switch them on, unless the user's settings decide about them. Returns whether it did so.

    Without them one permanent block can keep a huge segment from being given back.
    """
    mine = settings()
    if "expandable_segments" in mine:
        return False
    # The user's own settings are repeated, because some torch versions reset what is left out.
    wanted = ",".join(filter(None, [mine.strip().strip(","), "expandable_segments:True"]))
    apply = getattr(torch._C, "_accelerator_setAllocatorSettings", None)
    if apply is None:
        apply = torch.cuda.memory._set_allocator_settings
    apply(wanted)
    return True
