"""Typical values: what a dry run's program reads where no kernel computes (docs/foresight.md)."""

from __future__ import annotations

import ctypes
from typing import Any

from ._errors import EbbtideError

_NAMES = {
    "number": "numbers as {}",
    "low": "tensors spread from {}",
    "high": "to {}",
    "choice": "choices (topk, argmax, ...) {}",
    "found_inf": "found_inf {}",
}
_CHOICES = {"even": "evenly spread", "first": "the first ones"}


def line(report: dict[str, Any]) -> str:
    """What the program read, or had chosen, that a device would have computed, and as what."""
    reads, choices = report["uncomputed_reads"], report["typical_choices"]
    text = f"values read that were not computed: {reads}"
    if reads:
        text += f" (first: {report['first_uncomputed_read']})"
    if choices:
        text += f", and {choices} choices among such values"
    if not reads and not choices:
        return text
    given = dict(part.split("=") for part in report["typical"].split(","))
    given["choice"] = _CHOICES[given["choice"]]
    taken = [_NAMES[name].format(value) for name, value in given.items()]
    taken[1:3] = [" ".join(taken[1:3])]
    return f"{text}, taken as: {', '.join(taken)} (--typical)"


def large_line(report: dict[str, Any]) -> list[str]:
    """That integers were too large to be computed, and what to do; nothing if none were."""
    count = report["large_integers"]
    if not count:
        return []
    return [
        f"{count} operators on integers above the compute limit were not computed, and read as zero: if the program's "
        "course depends on them, set EBBTIDE_DRYRUN_COMPUTE_LIMIT=1GiB or more"
    ]


def typical(tensor: Any, value: Any) -> Any:
    """Say what a tensor typically holds, where a program's course depends on it; returns the tensor.

    In a dry run the tensor holds `value` (a number, or a tensor or lists of its shape) from now on, at no
    cost of time. Everywhere else nothing happens. Raises EbbtideError for a value of another shape and for a
    tensor that is not contiguous. Thread-safe as the tensor is.
    """
    put = getattr(ctypes.CDLL(None), "ebbtide_dryrun_put", None)
    if put is None or not tensor.is_cuda:
        return tensor
    import torch

    if not tensor.is_contiguous():
        raise EbbtideError("ebbtide.typical: the tensor is not contiguous; give it before the view")
    host = torch.as_tensor(value, dtype=tensor.dtype, device="cpu").detach()
    try:
        host = host.expand(tensor.shape).contiguous()
    except RuntimeError:
        raise EbbtideError(
            f"ebbtide.typical: a value of shape {list(host.shape)} for a tensor of {list(tensor.shape)}"
        ) from None
    put.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
    put(tensor.data_ptr(), host.data_ptr(), host.numel() * host.element_size())
    return tensor
