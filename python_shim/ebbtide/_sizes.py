"""Sizes as people write them: "16GiB", "1.5TB", "1048576"."""

from __future__ import annotations

import decimal
import re

_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?(?:B|([KMGT])(i?)B)?")
_BARE = re.compile(r"\d+(?:\.\d+)?")
_LEAST_BARE = 64 << 20  # no device, host memory or budget is as small as that: a unit was forgotten
_MOST_GIB = 4096
_POWERS = {None: 0, "K": 1, "M": 2, "G": 3, "T": 4}


def parse_size(text: str) -> int | None:
    """The number of bytes; None when the text is no size."""
    found = _SIZE.fullmatch(text.strip())
    if not found:
        return None
    number, prefix, binary = found.groups()
    return int(decimal.Decimal(number) * (1024 if binary else 1000) ** _POWERS[prefix])


def forgotten_unit(text: str, least: int = _LEAST_BARE) -> str | None:
    """What to say of a number without a unit that is no size that anybody means; None: it is one, or has a unit."""
    text = text.strip()
    if not _BARE.fullmatch(text) or not 0 < decimal.Decimal(text) < least:
        return None
    unit = "GiB" if decimal.Decimal(text) < _MOST_GIB else "MiB"
    return f"that is {text} bytes; did you mean {text}{unit}?"
