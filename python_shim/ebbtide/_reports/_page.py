"""A report as one HTML file to explore: no network, no library, whatever the recording's length.

What is drawn is bounded: columns of the course of time, the blocks that cover most of the map, the first marks. What is
left out is said on the page. Numbers travel as base64 of plain arrays.
"""

from __future__ import annotations

import base64
import html
import json
import pathlib
import re
from typing import Any

import numpy as np

from .._report import size_text
from ._console import five_lines, percent
from ._figures import (
    categories_at,
    holdings_at,
    largest_at,
    live_curve,
    owners_at,
    peak_reserved,
    peak_state,
    split_at,
    timeline,
)
from ._model import Category, Device, Phase, Recording
from ._planned import Saving

_COLUMNS = 4000
_MOST_BLOCKS = 60_000
_MOST_MARKS = 2000
_MOST_ROWS = 50
_TEMPLATE = "_page.html"


def render(recording: Recording, device: Device, saving: Saving | None) -> str:
    name = pathlib.PurePath(recording.source).name
    filled = {
        "TITLE": html.escape(f"{name}, {device.name}"),
        "LINES": html.escape(five_lines(recording, device, saving)),
        "CARDS": _cards(device, saving),
        "TABLES": _tables(recording, device),
        # Inside <script>, only a "</script>" or "<!--" could end it early.
        "DATA": json.dumps(_data(device, saving), separators=(",", ":")).replace("<", "\\u003c"),
    }
    page = pathlib.Path(__file__).with_name(_TEMPLATE).read_text(encoding="utf-8")
    return re.sub("{{(TITLE|LINES|CARDS|TABLES|DATA)}}", lambda found: filled[found[1]], page)


def _packed(values: np.ndarray, kind: str) -> str:
    return base64.b64encode(np.ascontiguousarray(values.astype(kind))).decode()


def _data(device: Device, saving: Saving | None) -> dict[str, Any]:
    line = timeline(device, _COLUMNS)
    state = peak_state(device)
    times = (device.times_ns - device.times_ns[0]) / 1e9
    return {
        "states": device.states,
        "peak": state,
        "seconds": device.seconds,
        "columns": {
            "states": _packed(line.states, "<u4"),
            "seconds": _packed(times[line.states], "<f8"),
            "live": _packed(line.live, "<f8"),
            "reserved": None if line.reserved is None else _packed(line.reserved, "<f8"),
            "used": None if line.device_used is None else _packed(line.device_used, "<f8"),
            "categories": {int(category): _packed(sizes, "<f8") for category, sizes in line.categories.items()},
        },
        "names": [category.text for category in Category],
        "split": split_at(device, state).parts,
        "marks": [[mark.state, mark.name] for mark in device.marks[:_MOST_MARKS]],
        "failures": [[failure.state, failure.asked] for failure in device.failures],
        "map": _map(device, saving),
    }


def _map(device: Device, saving: Saving | None) -> dict[str, Any]:
    """The blocks that cover most of time x address. Addresses are drawn without the gaps between held ranges."""
    blocks = device.blocks
    area = (blocks.release - blocks.birth).astype(np.float64) * blocks.held
    drawn = np.sort(np.argsort(-area, kind="stable")[:_MOST_BLOCKS])
    begins, tops, height = _ranges(device)
    planned = saving.offsets(len(blocks))[drawn] if saving is not None else None
    segments = device.segments
    return {
        "height": height,
        "plan": saving.plan if saving is not None else None,
        "left_out": len(blocks) - len(drawn),
        "place": _packed(_squeezed(blocks.address[drawn], begins, tops), "<f8"),
        "planned": None if planned is None else _packed(planned, "<f8"),
        "size": _packed(blocks.held[drawn], "<f8"),
        "requested": _packed(blocks.size[drawn], "<f8"),
        "birth": _packed(blocks.birth[drawn], "<u4"),
        "death": _packed(blocks.release[drawn], "<u4"),
        "category": _packed(blocks.category[drawn], "u1"),
        "phase": _packed(blocks.phase[drawn], "u1"),
        "owner": _packed(blocks.owner[drawn], "<u4"),
        "owners": device.owners,
        "phases": [phase.name.lower() for phase in Phase],
        "segments": {
            "place": _packed(_squeezed(segments.address, begins, tops), "<f8"),
            "size": _packed(segments.size, "<f8"),
            "birth": _packed(segments.birth, "<u4"),
            "death": _packed(segments.death, "<u4"),
        },
    }


def _ranges(device: Device) -> tuple[np.ndarray, np.ndarray, int]:
    """Where each range of addresses that was ever used begins, where it is drawn, and the height of all."""
    begins = np.concatenate([device.segments.address, device.blocks.address])
    ends = begins + np.concatenate([device.segments.size, device.blocks.held]).astype(np.uint64)
    if not len(begins):
        return np.zeros(1, np.uint64), np.zeros(1, np.int64), 1
    order = np.argsort(begins, kind="stable")
    begins, reach = begins[order], np.maximum.accumulate(ends[order])
    heads = np.flatnonzero(np.concatenate([[True], begins[1:] > reach[:-1]]))
    lasts = np.append(heads[1:], len(begins)) - 1
    sizes = (reach[lasts] - begins[heads]).astype(np.int64)
    tops = np.concatenate([[0], np.cumsum(sizes)])
    return begins[heads], tops[:-1], int(tops[-1])


def _squeezed(addresses: np.ndarray, begins: np.ndarray, tops: np.ndarray) -> np.ndarray:
    of = np.searchsorted(begins, addresses, side="right") - 1
    return tops[of] + (addresses - begins[of]).astype(np.int64)


def _cards(device: Device, saving: Saving | None) -> str:
    live, reserved = int(live_curve(device).max()), peak_reserved(device)
    cards = [("peak live", size_text(live)), ("peak reserved", "not in the file" if reserved is None else size_text(reserved))]
    if reserved and live:
        cards.append(("fragmentation", f"{100 * (reserved / live - 1):.1f} %"))
    if saving is not None:
        cards.append(("plan of all blocks", size_text(saving.plan)))
        if saving.share is not None:
            cards.append(("left to save" if device.is_served else "Ebbtide would save", f"{max(100 * saving.share, 0):.1f} %"))
    return "".join(f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(text)}</dd></div>" for name, text in cards)


def _tables(recording: Recording, device: Device) -> str:
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
    begins, sizes, taken = holdings_at(device, state)
    order = np.argsort(taken - sizes, kind="stable")
    held = [
        (f"{int(begins[i]):#x}", size_text(int(sizes[i])), size_text(int(taken[i])), size_text(int(sizes[i] - taken[i])))
        for i in order
    ]
    told.append(_table("Segments at the peak, most free bytes first", ("address", "size", "taken", "free"), held))
    notes = [*device.notes, *([f"the file {recording.damage}"] if recording.damage else [])]
    if recording.lost_events:
        notes.append(f"{recording.lost_events} events were lost")
    return "".join(told) + "".join(f"<p>{html.escape(note)}</p>" for note in notes)


def _table(title: str, heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    if not rows:
        return ""
    shown = rows[:_MOST_ROWS]
    more = f"<p>and {len(rows) - len(shown)} more</p>" if len(rows) > len(shown) else ""
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in heads)
    body = "".join(
        f'<tr><th scope="row">{html.escape(row[0])}</th>' + "".join(f"<td>{html.escape(cell)}</td>" for cell in row[1:]) + "</tr>"
        for row in shown
    )
    return (
        f'<section><h2>{html.escape(title)}</h2><div class="scroll" tabindex="0" role="region" '
        f'aria-label="{html.escape(title)}"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>{more}</section>"
    )
