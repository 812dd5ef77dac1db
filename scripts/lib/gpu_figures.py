"""What scripts/gpu-check measures: dry runs beside real ones (bench/foresight_check.py), and benchmarks (bench/fragmentation.py)."""

from __future__ import annotations

import dataclasses
import importlib.util
import pathlib
import sys
from collections.abc import Callable
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "bench"))

import foresight_check  # noqa: E402
import fragmentation  # noqa: E402
import launch  # noqa: E402
import scenarios  # noqa: E402

Tell = Callable[[dict[str, Any]], None]
ROWS = "1,6,7,4,2,3,5"  # the short ones first
_TIMEOUT = 180  # seconds of one run
_LONG = {"fixed-64k", "random-128k", "random-batch", "micro-batches"}
_FEWER_STEPS = ("--steps", "8", "--settle-after", "4")
NO_JSON = (
    "nlohmann/json.hpp was not found, so no simulated GPU was built: put it into /usr/local/include/nlohmann, or name "
    "the folder that holds nlohmann/ in CMAKE_INCLUDE_PATH"
)


def _why_no_dry_runs(build: pathlib.Path, device: str) -> str:
    """Empty where there can be some."""
    from ebbtide import _dryrun

    try:
        _dryrun.native_folder()
    except _dryrun.DryrunError as error:
        cache = build / "CMakeCache.txt"
        lacks = cache.exists() and "EBBTIDE_JSON_INCLUDE:PATH=EBBTIDE_JSON_INCLUDE-NOTFOUND" in cache.read_text()
        return NO_JSON if lacks else str(error)
    if foresight_check.file_of(device) is None:
        return f"no device file is named {device!r}: bench/foresight_check.py --device compares with the most similar one"
    return ""


def foresight(build: pathlib.Path, device: str, end: float, tell: Tell) -> dict[str, Any]:
    """Each row with pass or fail. `device`: its name, as torch says it. `tell` hears what is known after each row."""
    if reason := _why_no_dry_runs(build, device):
        print(f"SKIPPED dry runs against this GPU: {reason}", flush=True)
        return {"rows": [], "passed": 0, "failed": 0, "skipped": 1, "reason": reason}
    file = foresight_check.file_of(device)
    assert file is not None
    return foresight_check.compare_all(list(foresight_check.ROWS.values()), file, None, end, tell)


def verdict(entry: dict[str, Any]) -> str:
    """Of a row under all allocators. That torch's own have no room for it is a result; ours must serve it."""
    outcome = "passed"
    for allocator, result in entry["results"].items():
        is_ours = allocator in ("ebbtide", launch.PLANNED)
        if result.get("error") == launch.OUT_OF_TIME:
            outcome = "skipped"
        elif "error" in result or (is_ours and (result["out_of_memory"] or result["ebbtide"] is None)):
            return "failed"
    return outcome


def benchmarks(rows: str, end: float, tell: Tell) -> dict[str, Any]:
    """Row by row, each with an entry's figures and `outcome`."""
    arguments = ["--real", "--timeout", str(_TIMEOUT)]
    if importlib.util.find_spec("transformers") is None:
        print("transformers is not installed here: the benchmarks use bench/plain_llama.py")
        arguments += ["--model", "plain"]
    found: dict[str, Any] = {"rows": [], "passed": 0, "failed": 0, "skipped": 0}
    for row in scenarios.chosen_rows(rows):
        fewer = _FEWER_STEPS if row.name in _LONG else ()
        options = fragmentation.parse([*arguments, *fewer])
        options.end = end
        row = scenarios.apply_arguments(row, options)
        entry = fragmentation.measure(row, options)
        fragmentation.show(row, entry)
        entry |= {"scenario": dataclasses.asdict(row), "outcome": verdict(entry)}
        found["rows"].append(entry)
        found[entry["outcome"]] += 1
        tell(found)
    return found
