"""What a dry run's report says of time, in words."""

from __future__ import annotations

from typing import Any

_GIB = 1 << 30
_NAMES = {
    "matrix": "matrix products",
    "attention": "attention",
    "other": "other operators",
    "copy_out": "copies out",
    "copy_in": "copies in",
    "unknown": "kernels of unknown length",
    "collective": "collectives",
}
ASSUMPTIONS = (
    "a roofline: each operator takes as long as its operations or its bytes do, at the shares of the "
    "peaks that the device file names"
)


ALONE = (
    "the other ranks do the same at the same time; collectives are rings over the links of the device "
    "file, in turns; what NCCL itself takes of the device's memory is not counted"
)


def duration(seconds: float) -> str:
    """In seconds, or in milliseconds where these would not show it."""
    return f"{seconds:.3f} s" if seconds >= 0.1 or seconds < 1e-9 else f"{1e3 * seconds:.3g} ms"


def exposed_seconds(time: dict[str, Any]) -> float:
    """Seconds of a step in which the computing stream ran collectives or waited for them."""
    parts = (time["busy_seconds"], time["stalled_seconds"])
    return float(sum(part.get("collective", 0) for part in parts))


def rank_lines(report: dict[str, Any], seconds: float) -> list[str]:
    """Of a rank that ran alone: what its collectives take, and what is assumed of the others."""
    if "rank" not in report:
        return []
    where = f"rank {report['rank']} of {report['ranks']}"
    if not report["communicators"]:
        return [
            f"{where}: no process group was used on the device, so this is one rank by itself "
            '(torch.distributed.init_process_group("nccl"))'
        ]
    time = report["time"]
    exposed = exposed_seconds(time)
    return [
        f"{where}: {time['collectives']:.0f} collectives of {duration(time['collective_seconds'])}, "
        f"{time['collective_bytes'] / _GIB:.2f} GiB sent; not hidden {duration(exposed)} "
        f"({_percent(exposed, seconds)})",
        f"assumed of the ranks: {ALONE}",
    ]


def stalled_seconds(time: dict[str, Any]) -> float:
    """Seconds of a step in which the computing stream waited for another."""
    return float(sum(time["stalled_seconds"].values()))


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f} %"


def _where(time: dict[str, Any], seconds: float) -> str:
    parts = [
        (spent, f"{_NAMES[name]} {_percent(spent, seconds)}")
        for name, spent in time["busy_seconds"].items()
        if spent >= 0.001 * seconds
    ]
    text = ", ".join(words for _, words in sorted(parts, reverse=True))
    for name, spent in time["stalled_seconds"].items():
        if spent >= 0.001 * seconds:
            text += f"; stalled for {_NAMES[name]} {_percent(spent, seconds)}"
    if time["waiting_for_host_seconds"] >= 0.001 * seconds:
        text += f"; waiting for the host {_percent(time['waiting_for_host_seconds'], seconds)}"
    told = sum(time["busy_seconds"].values()) + stalled_seconds(time) + time["waiting_for_host_seconds"]
    if seconds - told >= 0.005 * seconds:  # it is the stream that computes most of which the rest is told
        text += f"; at its end while others go on {_percent(seconds - told, seconds)}"
    return text


def time_lines(report: dict[str, Any]) -> list[str]:
    """A few lines; none where nothing ran on a device."""
    time = report.get("time")
    if not time or time["total_seconds"] <= 0 or not time["launches"]:
        return []
    seconds = time["step_seconds"]
    if seconds is None:
        seconds = time["total_seconds"]
        first = f"{duration(seconds)} in all (predicted); no training step was recognised in it"
    else:
        stalls = stalled_seconds(time)
        count = max(1, time["steps"] - 1)
        first = f"a step takes {duration(seconds)} (predicted, mean of {count})"
        if time["step_tokens"]:
            whose = " of this rank" if "rank" in report else ""
            first += f", {time['tokens_per_second']:.0f} tokens/s{whose}"
        # Under torch.func autograd records nothing that tells a forward pass from an evaluation.
        is_known = time["forward_flops"] > 0 or time["flops"] == 0
        mfu = _percent(time["mfu"], 1) if is_known else "not known"
        first += f", MFU {mfu}, stalls {duration(stalls)} ({_percent(stalls, seconds)})"
    lines = [first, f"the time goes to {_where(time, seconds)}"]
    lines += rank_lines(report, seconds)
    pinned = report.get("peak_pinned_bytes", 0)
    if pinned or time["out_bytes"] > 1 << 20:
        lines.append(
            f"host memory pinned at most {pinned / _GIB:.2f} GiB; a step copies "
            f"{time['out_bytes'] / _GIB:.2f} GiB out and {time['in_bytes'] / _GIB:.2f} GiB in"
        )
    if time.get("hfu", 0) > 1:
        lines.append(
            f"streams compute at the same time, {_percent(time['hfu'], 1)} of the device's peak together: "
            "a real step takes longer, since each of them is given the whole device here"
        )
    if time["unknown_launches"]:
        lines.append(
            f"{time['unknown_launches']:.0f} kernels a step are not torch's own operators: "
            "each counts as the shortest kernel"
        )
    lines.append(f"assumed: {ASSUMPTIONS} (docs/foresight.md)")
    return lines
