"""A report for programs: schema ebbtide.report/2, described in docs/report.md."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from . import _activity
from ._figures import (
    categories_at,
    holdings_at,
    libraries_at,
    live_curve,
    owners_at,
    peak_reserved,
    peak_state,
    split_at,
    stacks_at,
    timeline,
)
from ._model import Device, Failure, Recording
from ._planned import Saving

SCHEMA = "ebbtide.report/2"
_COLUMNS = 200
_MOST_OWNERS = 100
_MOST_WORKS = 200


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
            "stacks": [dataclasses.asdict(share) for share in stacks_at(device, state)[:_MOST_OWNERS]],
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
        "failures": [_failure(device, failure) for failure in device.failures],
        "marks": [{"event": mark.state, "name": mark.name} for mark in device.marks],
        "notes": device.notes,
        "streams": None if device.activity is None or not device.activity.is_gpu_recorded else _streams(device, state),
        "swaps": None if device.activity is None or not device.activity.has_swaps else _swaps(device.activity),
    }


def _failure(device: Device, failure: Failure) -> dict[str, Any]:
    told = dataclasses.asdict(failure)
    told["frames"] = device.frames_of(told.pop("stack"))
    return told


def _streams(device: Device, state: int) -> dict[str, Any]:
    activity = device.activity
    assert activity is not None
    found = _activity.overlap(activity)
    return {
        "lost_records": activity.lost,
        "overlap": {**dataclasses.asdict(found), "idle_ns": found.idle_ns},
        "streams": [dataclasses.asdict(share) for share in _activity.streams(activity.work)],
        "works": [dataclasses.asdict(share) for share in _activity.works(activity)[:_MOST_WORKS]],
        "host_pinned": {"time_ns": activity.cuda_pinned_times.tolist(), "bytes": activity.cuda_pinned.tolist()},
        "libraries": [
            {"name": share.name, "size": share.size, "blocks": share.count}
            for share in libraries_at(device, state)
        ],
    }


def _swaps(activity: _activity.Activity) -> dict[str, Any]:
    times, host = _activity.host_curve(activity.swaps)
    shown = np.unique(np.linspace(0, len(times) - 1, min(len(times), _COLUMNS)).astype(np.int64)) if len(times) else []
    return {
        **dataclasses.asdict(_activity.swap_totals(activity)),
        "layers": [dataclasses.asdict(share) for share in _activity.layers(activity)],
        "host": {"time_ns": times[shown].tolist(), "bytes": host[shown].tolist()} if len(times) else {"time_ns": [], "bytes": []},
        "pinned": {"time_ns": activity.pinned_times.tolist(), "bytes": activity.pinned.tolist()},
    }


def _saving(saving: Saving) -> dict[str, Any]:
    return {
        "reserved": saving.reserved,
        "plan": saving.plan,
        "lower_bound": saving.lower_bound,
        "is_lowest": saving.is_lowest,
        "share": saving.share,
    }
