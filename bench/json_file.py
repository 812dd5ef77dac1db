"""What measurements write as JSON: numbers that are not finite are null, as the format has no word for them."""

from __future__ import annotations

import json
import math
import os
import pathlib
from typing import Any


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(part) for part in value]
    return value


def text(value: Any, indent: int | None = None) -> str:
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


def write(path: pathlib.Path, value: Any) -> None:
    """At once: a reader, or an end in between, finds the old file or the new one."""
    beside = path.with_name(path.name + ".part")
    beside.write_text(text(value, indent=1) + "\n")
    os.replace(beside, path)
