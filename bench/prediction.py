"""A dry run's figures beside those of a real run: how far they are apart, and whether that is allowed.

Pure functions of reports, as foresight_run.py prints them: {"tokens", "held_bytes",
"live_bytes", "step_seconds"}.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

MEMORY = 0.005  # of peak bytes
TIME = 0.15  # of a step, with the device file as it is
CALIBRATED = 0.05  # with the shares that `ebbtide calibrate` measured
LONG = 8192  # tokens a step from which matrix products bound it: shorter ones are told, not judged


@dataclasses.dataclass(frozen=True)
class Check:
    """`error` is signed: above 0 where more was predicted than came true. `passes`: None is not judged."""

    what: str
    predicted: float
    real: float
    error: float
    allowed: float
    passes: bool | None


def check(what: str, predicted: float, real: float, allowed: float, is_judged: bool = True) -> Check:
    if real <= 0:  # nothing to compare with is no success
        return Check(what, predicted, real, float("inf"), allowed, False)
    error = predicted / real - 1
    return Check(what, predicted, real, error, allowed, abs(error) <= allowed if is_judged else None)


def compare(
    real: Mapping[str, Any], dry: Mapping[str, Any], calibrated: Mapping[str, Any] | None
) -> list[Check]:
    """What the two dry runs, one with a calibrated device file, said of the real run. `calibrated` is None
    where there is none: then it is no part of the answer."""
    is_long = real["tokens"] >= LONG
    checks = [
        check("peak held", dry["held_bytes"], real["held_bytes"], MEMORY),
        check("peak live", dry["live_bytes"], real["live_bytes"], MEMORY),
        check("step", dry["step_seconds"], real["step_seconds"], TIME, is_long),
    ]
    if calibrated is not None:
        seconds = calibrated["step_seconds"]
        checks.append(check("step, calibrated", seconds, real["step_seconds"], CALIBRATED, is_long))
    return checks


def verdict(checks: list[Check]) -> bool:
    return all(one.passes is not False for one in checks)
