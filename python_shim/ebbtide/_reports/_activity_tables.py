"""What streams and swaps did, as tables: for the console and for the page."""

from __future__ import annotations

from collections.abc import Sequence

from .._report import size_text
from ._activity import Activity, layers, overlap, streams, swap_totals, works
from ._console import percent
from ._figures import libraries_at, peak_state
from ._model import Device
from ._tables import table

_MOST_ROWS = 20
_MOST_NAME = 72

Table = tuple[str, Sequence[str], list[tuple[str, ...]]]  # a title, heads, rows


def milliseconds(ns: int) -> str:
    return f"{ns / 1e6:.3f} ms"


def streams_text(device: Device) -> str:
    activity = device.activity
    if activity is None or not activity.is_gpu_recorded:
        return "What the streams did: not in the file; EBBTIDE_CUPTI=1 records it\n"
    told = "".join(f"{title}\n{table(heads, rows[:_MOST_ROWS])}{_more(rows)}" for title, heads, rows in stream_tables(device))
    lost = f"  {activity.lost} records were lost\n" if activity.lost else ""
    return f"What the streams did\n  {overlap_line(activity)}\n{told}{_pinned_line(activity)}{lost}"


def _pinned_line(activity: Activity) -> str:
    most = int(activity.cuda_pinned.max(initial=0))
    return f"  host memory pinned through CUDA: at most {size_text(most)}\n" if most else ""


def swaps_text(device: Device) -> str:
    activity = device.activity
    if activity is None or not activity.has_swaps:
        return "Swaps: none in the file\n"
    told = "".join(f"{title}\n{table(heads, rows)}" for title, heads, rows in swap_tables(activity))
    return f"Swaps\n  {swaps_line(activity)}\n{told}"


def overlap_line(activity: Activity) -> str:
    """The course of time in one line."""
    found = overlap(activity)
    if not found.span_ns:
        return "no kernel, copy or memset"
    return (
        f"of {milliseconds(found.span_ns)}: kernels {percent(found.kernel_ns, found.span_ns)}, copies with the host "
        f"{percent(found.copy_ns, found.span_ns)} ({percent(found.both_ns, found.copy_ns)} of them beside a kernel), "
        f"neither {percent(found.idle_ns, found.span_ns)}"
    )


def swaps_line(activity: Activity) -> str:
    totals = swap_totals(activity)
    return (
        f"{totals.tickets} swaps, {size_text(totals.out_bytes)} out and {size_text(totals.in_bytes)} back; copies took "
        f"{milliseconds(totals.copying_ns)}, {milliseconds(totals.exposed_ns)} of it not hidden; on the host at most "
        f"{size_text(totals.peak_host_bytes)} of {size_text(totals.peak_pinned_bytes)} pinned"
    )


def stream_tables(device: Device) -> list[Table]:
    """Those with a row."""
    activity = device.activity
    if activity is None or not activity.is_gpu_recorded:
        return []
    span = overlap(activity).span_ns
    by_stream = [
        (f"stream {s.stream}", milliseconds(s.busy_ns), percent(s.busy_ns, span), str(s.kernels), str(s.copies), size_text(s.copied_bytes))
        for s in streams(activity.work)
    ]
    whole = int(activity.work.length.sum())
    by_name = [
        (_cut(w.name), str(w.count), milliseconds(w.ns), percent(w.ns, whole), size_text(w.size) if w.size else "")
        for w in works(activity)
    ]
    held = libraries_at(device, peak_state(device))
    by_library = [(share.name, size_text(share.size), str(share.count)) for share in held]
    tables: list[Table] = [
        ("By stream", ("stream", "busy", "share", "kernels", "copies", "copied"), by_stream),
        ("What took longest", ("kernel or copy", "count", "time", "share", "bytes"), by_name),
        ("Device memory that torch did not take, at the peak", ("library", "size", "blocks"), by_library),
    ]
    return [each for each in tables if each[2]]


def swap_tables(activity: Activity) -> list[Table]:
    rows = [
        (
            share.layer,
            size_text(share.kept),
            size_text(share.swapped),
            size_text(share.recomputed),
            str(share.tickets),
            milliseconds(share.copying_ns),
            milliseconds(share.exposed_ns),
        )
        for share in layers(activity)
    ]
    heads = ("layer", "kept", "swapped", "recomputed", "swaps", "copying", "not hidden")
    return [("By layer: what its backward needs, over all calls", heads, rows)] if rows else []


def _cut(name: str) -> str:
    return name if len(name) <= _MOST_NAME else name[: _MOST_NAME - 3] + "..."


def _more(rows: list[tuple[str, ...]]) -> str:
    return f"  and {len(rows) - _MOST_ROWS} more\n" if len(rows) > _MOST_ROWS else ""
