"""A report for programs: schema ebbtide.report/2, described in docs/report.md."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from ._figures import (
    categories_at,
    holdings_at,
    live_curve,
    owners_at,
    peak_reserved,
    peak_state,
    split_at,
    timeline,
)
from ._model import Device, Recording
from ._planned import Saving

SCHEMA = "ebbtide.report/2"
_COLUMNS = 200
_MOST_OWNERS = 100


def render(
    recording: Recording, savings: Mapping[int, Saving | None], engine: Mapping[str, Any] | None
) -> str:
    """One JSON object; `engine` is what the engine counted itself, of our own traces."""
    told = {
        "schema": SCHEMA,
        "source": recording.source,
        "kind": recording.kind,
        "events": recording.events,
        "complete": not recording.damage,
        "damage": recording.damage,
        "lost_events": recording.lost_events,
        "devices": [_device(device, savings.get(device.index)) for device in recording.devices],
        "engine": engine,
    }
    return json.dumps(told, indent=2)


def _device(device: Device, saving: Saving | None) -> dict[str, Any]:
    state = peak_state(device)
    live, reserved = int(live_curve(device).max()), peak_reserved(device)
    begins, sizes, taken = holdings_at(device, state)
    line = timeline(device, _COLUMNS)
    return {
        "device": device.index,
        "name": device.name,
        "events": device.states - 1,
        "blocks": len(device.blocks),
        "seconds": device.seconds,
        "peak_live_bytes": live,
        "peak_reserved_bytes": reserved,
        "fragmentation": reserved / live - 1 if reserved and live else None,
        "peak": {
            "event": state,
            "time_ns": int(device.times_ns[state]),
            "bytes": dataclasses.asdict(split_at(device, state)),
            "categories": [dataclasses.asdict(share) for share in categories_at(device, state)],
            "owners": [dataclasses.asdict(share) for share in owners_at(device, state)[:_MOST_OWNERS]],
            "segments": [
                {"address": int(b), "size": int(s), "taken": int(t)} for b, s, t in zip(begins, sizes, taken, strict=True)
            ],
        },
        "end": {"event": device.states - 1, "bytes": dataclasses.asdict(split_at(device, device.states - 1))},
        "saving": None if saving is None else _saving(saving),
        "timeline": {
            "events": line.states.tolist(),
            "time_ns": device.times_ns[line.states].tolist(),
            "live_bytes": line.live.tolist(),
            "reserved_bytes": None if line.reserved is None else line.reserved.tolist(),
            "device_used_bytes": None if line.device_used is None else line.device_used.tolist(),
            "categories": {category.text: sizes.tolist() for category, sizes in line.categories.items()},
        },
        "failures": [dataclasses.asdict(failure) for failure in device.failures],
        "marks": [{"event": mark.state, "name": mark.name} for mark in device.marks],
        "notes": device.notes,
    }


def _saving(saving: Saving) -> dict[str, Any]:
    return {
        "reserved": saving.reserved,
        "plan": saving.plan,
        "lower_bound": saving.lower_bound,
        "is_lowest": saving.is_lowest,
        "share": saving.share,
    }
