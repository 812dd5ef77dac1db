"""Tables on demand: the peak, owners, segments, the course of time, and two recordings side by side."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from .._report import size_text
from ._console import percent
from ._figures import (
    categories_at,
    holdings_at,
    largest_at,
    live_curve,
    owners_at,
    peak_reserved,
    peak_state,
    program_stacks_at,
    split_at,
    timeline,
)
from ._model import Category, Device, Phase
from ._planned import Saving

_MOST_ROWS = 20
_BAR = 32
_MOST_STACKS = 8
_MOST_FRAMES = 6


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Plain text; the first `left` columns flush left, numbers flush right."""
    widths = [max(len(row[i]) for row in [heads, *rows]) for i in range(len(heads))]
    lines = []
    for row in [heads, *rows]:
        cells = [cell.ljust(w) if i < left else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))]
        lines.append("  " + "  ".join(cells).rstrip())
    return "\n".join(lines) + "\n"


def peak(device: Device) -> str:
    state = peak_state(device)
    split = split_at(device, state)
    when = f"after event {state} of {device.states - 1}"
    if device.seconds:
        when += f", {float(device.times_ns[state] - device.times_ns[0]) / 1e9:.6f} s from the beginning"
    whole = split.device_used or split.reserved or split.requested
    parts = [(name, _exact(size), percent(size, whole)) for name, size in split.parts]
    if split.reserved is not None:
        parts.append(("= reserved" if split.device_used is None else "of that reserved", _exact(split.reserved), ""))
    if split.device_used is not None:
        parts.append(("= used of the device", _exact(split.device_used), ""))
    shares = categories_at(device, state)
    categories = [(s.name, _exact(s.size), percent(s.size, split.requested), str(s.blocks)) for s in shares]
    blocks = device.blocks
    largest = [
        (
            device.owners[blocks.owner[i]],
            Category(blocks.category[i]).text,
            Phase(blocks.phase[i]).name.lower(),
            size_text(int(blocks.size[i])),
            str(int(blocks.birth[i])),
        )
        for i in largest_at(device, state, _MOST_ROWS)
    ]
    return (
        f"The peak, {when}\n"
        + table(("where the bytes are", "bytes", "share"), parts)
        + table(("what lives", "bytes", "share", "blocks"), categories)
        + table(("largest blocks: owner", "category", "made in", "size", "since event"), largest, left=3)
    )


def owners(device: Device) -> str:
    shares = owners_at(device, peak_state(device))
    whole = sum(share.size for share in shares)
    rows = [(s.name, _exact(s.size), percent(s.size, whole), str(s.blocks)) for s in shares[:_MOST_ROWS]]
    if len(shares) > _MOST_ROWS:
        rest = shares[_MOST_ROWS:]
        size = sum(share.size for share in rest)
        rows.append((f"{len(rest)} more", _exact(size), percent(size, whole), str(sum(s.blocks for s in rest))))
    return "Owners at the peak\n" + table(("owner", "bytes", "share", "blocks"), rows) + _stacks(device)


def _stacks(device: Device) -> str:
    """The largest stacks at the peak; nothing where none is known."""
    shares = program_stacks_at(device, peak_state(device), _MOST_FRAMES)
    if not shares:
        return ""
    chosen = f", the {_MOST_STACKS} of {len(shares)} that hold the most" if len(shares) > _MOST_STACKS else ""
    lines = [f"Stacks at the peak{chosen}"]
    for share in shares[:_MOST_STACKS]:
        blocks = f"{share.blocks} block" + ("s" if share.blocks > 1 else "")
        lines.append(f"  {size_text(share.size)} in {blocks}, {share.owner}, made in {share.phase}")
        lines += [f"      {frame}" for frame in share.frames]
    return "\n".join(lines) + "\n"


def segments(device: Device) -> str:
    if not len(device.segments):
        return "Segments: not in the file\n"
    begins, sizes, taken = holdings_at(device, peak_state(device))
    order = sorted(range(len(begins)), key=lambda i: (-int(sizes[i] - taken[i]), int(begins[i])))
    rows = [
        (
            f"{int(begins[i]):#x}",
            size_text(int(sizes[i])),
            size_text(int(taken[i])),
            size_text(int(sizes[i] - taken[i])),
            "cached and fitting" if taken[i] == 0 else "stranded" if sizes[i] > taken[i] else "full",
        )
        for i in order[:_MOST_ROWS]
    ]
    shown = "" if len(begins) <= _MOST_ROWS else f", the {_MOST_ROWS} with most free bytes"
    head = f"{len(begins)} segments at the peak{shown}\n"
    return head + table(("address", "size", "taken", "free", "its free bytes are"), rows)


def over_time(device: Device) -> str:
    line = timeline(device, _MOST_ROWS)
    highest = max(int(line.live.max()), 1)
    begins = [0, *(line.states[:-1] + 1).tolist()]
    rows = []
    for i, state in enumerate(line.states.tolist()):
        seconds = float(device.times_ns[state] - device.times_ns[0]) / 1e9
        names = [mark.name for mark in device.marks if begins[i] <= mark.state <= state]
        said = names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else "") if names else ""
        reserved = "" if line.reserved is None else size_text(int(line.reserved[i]))
        bar = "#" * round(_BAR * int(line.live[i]) / highest)
        rows.append((bar.ljust(_BAR), said, str(state), f"{seconds:.6f}", size_text(int(line.live[i])), reserved))
    return "Over time: each row the highest moment of its stretch\n" + table(
        ("live", "marks since the row before", "event", "seconds", "live", "reserved"), rows, left=2
    )


@dataclasses.dataclass(frozen=True)
class Compared:
    """One of two recordings that are set beside each other."""

    source: str
    device: Device
    saving: Saving | None


def compared(first: Compared, second: Compared) -> str:
    return f"{first.source} and {second.source}\n" + table(("", "first", "second", "change", ""), compared_rows(first, second))


def compared_rows(first: Compared, second: Compared) -> list[tuple[str, ...]]:
    """A figure, in both, and how it changed."""
    rows = []
    both = (_compared_figures(each.device, each.saving) for each in (first, second))
    for (name, a), (_, b) in zip(*both, strict=True):
        texts = ["not known" if size is None else size_text(size) for size in (a, b)]
        change = "" if a is None or b is None else ("" if a == b else f"{'+' if b > a else '-'}{size_text(abs(b - a))}")
        ratio = "" if not a or b is None else f"{100 * (b / a - 1):+.1f} %" if b <= 10 * a else f"{b / a:.0f} times"
        rows.append((name, *texts, change, ratio))
    return rows


def _compared_figures(device: Device, saving: Saving | None) -> list[tuple[str, int | None]]:
    state = peak_state(device)
    split = split_at(device, state)
    named = {share.name: share.size for share in categories_at(device, state)}
    return [
        ("peak live", int(live_curve(device).max())),
        ("peak reserved", peak_reserved(device)),
        ("at the peak: requested", split.requested),
        ("rounding", split.rounding),
        ("stranded", split.stranded),
        ("cached and fitting", split.cached),
        ("not torch", split.not_torch),
        *((category.text, named.get(category.text, 0)) for category in Category),
        ("plan", saving.plan if saving else None),
    ]


def _exact(size: int) -> str:
    return f"{size} ({size_text(size)})" if abs(size) >= 1024 else str(size)
