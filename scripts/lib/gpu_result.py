"""The JSON that scripts/gpu-check writes: one device, one commit. What does not run stays as an earlier run left it."""

from __future__ import annotations

import datetime
import json
import os
import pathlib
import platform
import re
import subprocess
import sys
import time
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "bench"))

import json_file  # noqa: E402

SCHEMA = 2
# In a process of its own: what a process keeps on the device is missing to those that are measured.
_DEVICE = """
import json, torch
properties = torch.cuda.get_device_properties(0)
print(json.dumps({"device": properties.name, "device_bytes": properties.total_memory, "torch": torch.__version__,
                  "cuda": torch.version.cuda}))
"""


def output_of(*command: str) -> str:
    """Nothing where it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _first_line(*command: str) -> str:
    return (output_of(*command).splitlines() or ["unknown"])[0]


def describe() -> dict[str, Any]:
    device = output_of(sys.executable, "-c", _DEVICE)
    if not device:
        raise SystemExit("ebbtide error torch could not use the GPU")
    known = output_of("git", "rev-parse", "HEAD")
    # An earlier result in its own folder is no change of what is tested.
    changes = output_of("git", "status", "--porcelain", "--", ".", ":!bench/results")
    return {
        "schema": SCHEMA,
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        **json.loads(device.splitlines()[-1]),
        "driver": _first_line("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "-i", "0"),
        "python": platform.python_version(),
        "compiler": _first_line("c++", "--version"),
        "commit": known or os.environ.get("EBBTIDE_COMMIT") or None,
        "uncommitted_changes": bool(changes) if known else None,
    }


def path_of(described: dict[str, Any], folder: pathlib.Path) -> pathlib.Path:
    """Date, device, commit. Of unknown commits each run has a file of its own, as two of them may differ in all."""
    name = f"{described['date'][:10]}-{re.sub('[^a-z0-9]+', '-', described['device'].lower()).strip('-')}"
    if described["commit"]:
        changed = "-changed" if described["uncommitted_changes"] else ""
        return folder / f"{name}-{described['commit'][:10]}{changed}.json"
    path, number = folder / f"{name}.json", 1
    while path.exists():
        number += 1
        path = folder / f"{name}-{number}.json"
    return path


class Result:
    """Written whenever something is known: a run that is cut off keeps all until then, and the part it was at."""

    def __init__(self, described: dict[str, Any], folder: pathlib.Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = path_of(described, folder)
        earlier = json.loads(self.path.read_text()) if self.path.exists() else {}
        self.found: dict[str, Any] = {**earlier, **described}
        self._began = time.monotonic()

    def begin(self, part: str) -> None:
        self._began = time.monotonic()
        self._write(part)

    def put(self, part: str, found: dict[str, Any]) -> None:
        """All that is known of the running part, in place of what was."""
        self.found[part] = {"date": self.found["date"], "seconds": round(time.monotonic() - self._began, 1), **found}
        self._write(part)

    def end(self) -> None:
        self._write(None)

    def _write(self, running: str | None) -> None:
        self.found["running"] = running
        json_file.write(self.path, self.found)


def result_folder() -> pathlib.Path:
    return pathlib.Path(os.environ["OUT"]) if os.environ.get("OUT") else ROOT / "bench" / "results"
