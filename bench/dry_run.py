"""One dry run of a program that prints a JSON object: what it printed, and the simulator's report, or how it failed."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

OUT_OF_MEMORY = "out of memory"
_SETTINGS = {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True", "EBBTIDE_REPORT": "off"}


@dataclasses.dataclass(frozen=True)
class DryRun:
    printed: dict[str, Any] = dataclasses.field(default_factory=dict)
    report: dict[str, Any] = dataclasses.field(default_factory=dict)
    assumed: tuple[str, ...] = ()  # lines that name what is assumed and was not measured
    error: str = ""  # empty: it ran

    @property
    def held(self) -> int:
        return max(device["peak_bytes"] for device in self.report["devices"])

    @property
    def retries(self) -> int:
        return sum(device["retries"] for device in self.report["torch"])


def dry_run(
    program: Sequence[str],
    device: str,
    ranks: int = 0,
    settings: dict[str, str] | None = None,
    timeout: float = 3600,
) -> DryRun:
    """`program`: a Python file and its arguments. `ranks`: 0 for a program without torch.distributed. `settings`: of the
    environment, instead of expandable segments."""
    with tempfile.TemporaryDirectory() as scratch:
        report = pathlib.Path(scratch) / "report.json"
        simulated = ["--device", device, "--json", str(report)]
        if ranks:
            simulated += ["--ranks", str(ranks)]
        done = subprocess.run(
            [sys.executable, "-m", "ebbtide", "dryrun", *simulated, "--", sys.executable, *program],
            env=os.environ | (_SETTINGS if settings is None else settings | {"EBBTIDE_REPORT": "off"}),
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        found = json.loads(report.read_text()) if report.exists() else None
    return read_output(done.returncode, done.stdout, done.stderr, found)


def read_output(status: int, output: str, errors: str, report: dict[str, Any] | None) -> DryRun:
    lines = [line for line in output.splitlines() if line.startswith("{")]
    if lines and report is not None:
        assumed = (line for line in errors.splitlines() if line.startswith("ebbtide dryrun:") and "assumed" in line)
        return DryRun(json.loads(lines[-1]), report, tuple(assumed))
    if "OutOfMemoryError" in errors:
        return DryRun(error=OUT_OF_MEMORY)
    said = [line for line in errors.splitlines() if not line.startswith(("ebbtide", " "))]
    return DryRun(error=said[-1].strip() if said else f"status {status}")
