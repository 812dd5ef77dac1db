"""Sizes as people write them: "16GiB", "1.5TB", "1048576"."""

from __future__ import annotations

import decimal
import re

_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?(?:B|([KMGT])(i?)B)?")
_POWERS = {None: 0, "K": 1, "M": 2, "G": 3, "T": 4}


def parse_size(text: str) -> int | None:
    """The number of bytes; None when the text is no size."""
    found = _SIZE.fullmatch(text.strip())
    if not found:
        return None
    number, prefix, binary = found.groups()
    return int(decimal.Decimal(number) * (1024 if binary else 1000) ** _POWERS[prefix])
