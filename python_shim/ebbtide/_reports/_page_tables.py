"""What the page says as text: its cards and tables, as HTML. A table shows its first rows and says how many more there are."""

from __future__ import annotations

import html
import pathlib

import numpy as np

from .._report import size_text
from ._activity_tables import overlap_line, stream_tables, swap_tables, swaps_line
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
)
from ._model import Category, Device, Recording
from ._planned import Saving
from ._tables import Compared, compared_rows

_MOST_ROWS = 50
MOST_FRAMES = 8  # of a stack


def compared_table(first: Compared, second: Compared) -> str:
    names = [pathlib.PurePath(each.source).name for each in (first, second)]
    return _table(f"{names[0]} and {names[1]}: figures", ("at the peak", *names, "change", "share"), compared_rows(first, second))


def cards(device: Device, saving: Saving | None) -> str:
    live, reserved = int(live_curve(device).max()), peak_reserved(device)
    cards = [("peak live", size_text(live)), ("peak reserved", "not in the file" if reserved is None else size_text(reserved))]
    if reserved and live:
        cards.append(("fragmentation", f"{100 * (reserved / live - 1):.1f} %"))
    if saving is not None:
        cards.append(("plan of all blocks", size_text(saving.plan)))
        if saving.share is not None:
            cards.append(("left to save" if device.is_served else "Ebbtide would save", f"{max(100 * saving.share, 0):.1f} %"))
    return "".join(f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(text)}</dd></div>" for name, text in cards)


def tables(recording: Recording, device: Device) -> str:
    state = peak_state(device)
    split = split_at(device, state)
    whole = split.device_used or split.reserved or split.requested
    parts = [(name, size_text(size), str(size), percent(size, whole)) for name, size in split.parts]
    parts.append(("in all", size_text(whole), str(whole), ""))
    told = [_table("Where the bytes are at the peak", ("part", "size", "bytes", "share"), parts)]
    for title, shares in (
        ("What lives at the peak", categories_at(device, state)),
        ("Owners at the peak", owners_at(device, state)),
    ):
        rows = [(s.name, size_text(s.size), percent(s.size, split.requested), str(s.blocks)) for s in shares]
        told.append(_table(title, ("name", "size", "share", "blocks"), rows))
    blocks = device.blocks
    largest = [
        (
            device.owners[blocks.owner[i]],
            Category(blocks.category[i]).text,
            size_text(int(blocks.size[i])),
            str(int(blocks.birth[i])),
            "the end" if blocks.death[i] >= device.states else str(int(blocks.death[i])),
        )
        for i in largest_at(device, state, _MOST_ROWS)
    ]
    told.append(_table("Largest blocks at the peak", ("owner", "category", "size", "from event", "to"), largest))
    told.append(_stack_table(device, state))
    begins, sizes, taken = holdings_at(device, state)
    order = np.argsort(taken - sizes, kind="stable")
    held = [
        (f"{int(begins[i]):#x}", size_text(int(sizes[i])), size_text(int(taken[i])), size_text(int(sizes[i] - taken[i])))
        for i in order
    ]
    told.append(_table("Segments at the peak, most free bytes first", ("address", "size", "taken", "free"), held))
    told += [_table(title, tuple(heads), rows) for title, heads, rows in stream_tables(device)]
    activity = device.activity
    said = []
    if activity is not None and activity.is_gpu_recorded:
        said.append(f"Streams: {overlap_line(activity)}" + (f"; {activity.lost} records were lost" if activity.lost else ""))
    if activity is not None and activity.has_swaps:
        said.append(f"Swaps: {swaps_line(activity)}")
        told += [_table(title, tuple(heads), rows) for title, heads, rows in swap_tables(activity)]
    notes = [*said, *device.notes, *([f"the file {recording.damage}"] if recording.damage else [])]
    if recording.lost_events:
        notes.append(f"{recording.lost_events} events were lost")
    return "".join(told) + "".join(f"<p>{html.escape(note)}</p>" for note in notes)


def _stack_table(device: Device, state: int) -> str:
    rows = [
        (s.owner, s.phase, size_text(s.size), str(s.blocks), "\n".join(s.frames))
        for s in program_stacks_at(device, state, MOST_FRAMES)
    ]
    return _table("Stacks at the peak", ("owner", "made in", "size", "blocks", "from, the innermost line first"), rows)


def _table(title: str, heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    if not rows:
        return ""
    shown = rows[:_MOST_ROWS]
    more = f"<p>and {len(rows) - len(shown)} more</p>" if len(rows) > len(shown) else ""
    kinds = [' class="text"' if any("\n" in row[i] for row in shown) else "" for i in range(len(heads))]
    head = "".join(f'<th scope="col"{kind}>{html.escape(name)}</th>' for name, kind in zip(heads, kinds, strict=True))
    body = "".join(
        f'<tr><th scope="row">{html.escape(row[0])}</th>' + "".join(f"<td{kind}>{html.escape(cell)}</td>" for cell, kind in zip(row[1:], kinds[1:], strict=True)) + "</tr>"
        for row in shown
    )
    return (
        f'<section><h2>{html.escape(title)}</h2><div class="scroll" tabindex="0" role="region" '
        f'aria-label="{html.escape(title)}"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>{more}</section>"
    )
