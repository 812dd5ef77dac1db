"""Operators that take functions (flex_attention, cond, checkpointing under torch.compile), in a dry run.

The simulated GPU sees operators through a dispatch key that torch reserves for others. torch calls operators of
that kind in Python, by key, and refuses one that it has no function for.
"""

from __future__ import annotations

_KEY = "Fake"  # dryrun/torch/fallback.cpp


def install() -> None:
    """Lets all of them, also those that are still to be made, pass the key by: what they call is seen one by one."""
    import torch

    key = torch._C._dispatch_key_parse(_KEY)
    torch._ops._HIGHER_ORDER_OP_DEFAULT_FALLTHROUGH_DISPATCH_KEYS.append(key)
    for operator in torch._ops._higher_order_ops.values():
        operator.fallthrough(key)  # type: ignore[no-untyped-call]
