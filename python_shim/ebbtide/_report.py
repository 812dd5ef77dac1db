"""The five lines that `ebbtide report` prints of a trace; all else of it is _reports/.

The five lines are those of the report at exit (profiler/report_text.cpp): the wording must be
changed in both. A summary is a dict of the fields of ebbtide_trace_summary, or of ebbtide_stats,
which knows more (`divergences`, `settled_*`, `observed_peak_reserved_bytes`, ...): what is missing
is left out of the text or said to be not known.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping
from typing import Any

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_DIVERGENCES = {
    "unexpected": "unexpected",
    "outgrown": "outgrown",
    "place_taken": "place taken",
    "no_memory": "no memory",
}


def summarize(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The summary of a trace file. EbbtideError, in one line, if it cannot be read."""
    from . import _native
    from ._abi import TraceSummaryStruct

    struct = TraceSummaryStruct(struct_size=ctypes.sizeof(TraceSummaryStruct))
    library = _native.library()
    _native.check(library.ebbtide_summarize_trace(os.fsencode(path), ctypes.byref(struct)))
    names = [field[0] for field in TraceSummaryStruct._fields_ if field[0] != "struct_size"]
    return {**{name: getattr(struct, name) for name in names}, "truncated": bool(struct.truncated)}


def render_text(summary: Mapping[str, Any]) -> str:
    """Exactly five lines, each ended by a newline."""
    lines = (_live, _reserved, _served, _diverged, _saved)
    return "".join(line(summary).replace("\n", " ") + "\n" for line in lines)


def device_name(device: int) -> str:
    return "cpu" if device < 0 else f"cuda:{device}"


def size_text(size: int) -> str:
    """As to_string(Bytes) in allocator/base/units.h: "27.18 GiB", "512 B"."""
    value, unit = float(size), 0
    while abs(value) >= 1024 and unit + 1 < len(_UNITS):
        value /= 1024
        unit += 1
    return f"{value:.2f} {_UNITS[unit]}" if unit else f"{value:.0f} B"


def _fragmentation(summary: Mapping[str, Any]) -> float | None:
    if summary["peak_reserved_bytes"] <= 0 or summary["peak_live_bytes"] <= 0:
        return None
    return float(summary["peak_reserved_bytes"] / summary["peak_live_bytes"] - 1)


def _percent(part: int, whole: int) -> str:
    """One decimal; never "100.0 %" unless it is all."""
    if whole <= 0:
        return "0.0 %"
    return "100.0 %" if part >= whole else f"{min(100 * part / whole, 99.9):.1f} %"


def _plan_state(summary: Mapping[str, Any]) -> str:
    if summary.get("serving", summary["plans"] > 0):
        return "plan in force"
    if summary.get("observe_only"):
        return "no plan: only observing, as EBBTIDE=observe asks"
    if not summary["allocations"]:
        return "no plan: nothing was allocated"
    if summary["plans"]:
        return "no plan: the last one was given up"
    if summary["rounds"] < 2:
        return "no plan: fewer than two iterations were seen"
    if summary.get("programs") == 0:
        return f"no plan: no repetition was found in {summary['rounds']} iterations"
    return "no plan: none was ready before the end"


def _live(summary: Mapping[str, Any]) -> str:
    line = (
        f"ebbtide report ({device_name(summary['device'])}, {_plan_state(summary)}): "
        f"peak live {size_text(summary['peak_live_bytes'])}"
    )
    if summary["lost_events"]:
        line += f"; {summary['lost_events']} trace events were lost"
    if summary.get("truncated"):
        line += "; the trace ends early"
    return line


def _reserved(summary: Mapping[str, Any]) -> str:
    if summary["peak_reserved_bytes"] <= 0:
        return "  peak reserved: not measured"
    line = f"  peak reserved {size_text(summary['peak_reserved_bytes'])}"
    fragmentation = _fragmentation(summary)
    return line if fragmentation is None else f"{line}, fragmentation {100 * fragmentation:.1f} %"


def _served(summary: Mapping[str, Any]) -> str:
    if not summary["plans"]:
        return "  served by the plan: nothing"
    line = (
        f"  served by the plan: {_percent(summary['planned_bytes'], summary['allocated_bytes'])} "
        f"of bytes, {_percent(summary['planned_allocations'], summary['allocations'])} "
        "of allocations"
    )
    if "settled_allocations" not in summary:
        return line
    if not summary["settled_allocations"]:
        return line + "; nothing was allocated after warm-up"
    settled_bytes = _percent(summary["settled_planned_bytes"], summary["settled_allocated_bytes"])
    settled = _percent(summary["settled_planned_allocations"], summary["settled_allocations"])
    return f"{line}; after warm-up {settled_bytes} and {settled}"


def _diverged(summary: Mapping[str, Any]) -> str:
    if "divergences" not in summary:  # a trace tells which allocations, but not their causes
        total = summary["diverged_allocations"]
        return f"  divergences: {total}" if total else "  divergences: none"
    counts = {kind: count for kind, count in summary["divergences"].items() if count}
    if not counts:
        return "  divergences: none"
    kinds = ", ".join(f"{count} {_DIVERGENCES[kind]}" for kind, count in counts.items())
    line = f"  divergences: {sum(counts.values())} ({kinds})"
    first = summary.get("first_divergence")
    return f"{line}; the first: {first}" if first else line


def _saved(summary: Mapping[str, Any]) -> str:
    if not summary["plans"]:
        return "  saved: nothing, as no plan was in force"
    if "observed_peak_reserved_bytes" not in summary:
        return "  saved: not known from a trace; the report at exit tells"
    if summary.get("plan_was_loaded"):
        return "  saved: not known, as the plan was loaded"
    observed, held = summary["observed_peak_reserved_bytes"], summary["reserved_bytes"]
    if observed <= 0:
        return "  saved: not known, as no whole iteration was observed before the plan"
    saved = size_text(observed - held) if observed > held else "nothing"
    return (
        f"  saved: {saved}; the native allocator's own peak while observing was "
        f"{size_text(observed)}, now {size_text(held)} are held"
    )
