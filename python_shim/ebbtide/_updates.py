"""Optimizers' steps, in a dry run: one on the host, or of kernels that are not torch's, shows nothing on the device."""

from __future__ import annotations

import ctypes
from typing import Any

from . import _rest


def _hook() -> Any:
    import torch

    is_compiling = torch.compiler.is_compiling
    companion: list[ctypes.CDLL] = []

    def hook(*_: Any) -> None:
        if is_compiling() or not torch.cuda.is_initialized():
            return
        if not companion:
            found = _rest.companion()
            if found is None:
                return
            companion.append(found)
        companion[0].ebbtide_dryrun_note_update()

    return hook


def install() -> None:
    """Tells the simulated GPU when an optimizer has made its step."""
    from torch.optim.optimizer import register_optimizer_step_post_hook

    register_optimizer_step_post_hook(_hook())
