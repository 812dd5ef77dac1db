"""Damaged recordings: each is reported, or refused in one line, and never anything else.

    python tests/python/fuzz_reports.py 100000          prints the seed of a case that is not
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import pickle
import random
import struct
import sys
import tempfile
import time
import zlib
from typing import Any

import report_files as made
import report_recount

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "python_shim"))

from ebbtide import EbbtideError  # noqa: E402
from ebbtide._reports import (  # noqa: E402
    _activity_tables,
    _console,
    _json_form,
    _out_of_memory,
    _page,
    _perfetto,
    _planned,
    _reading,
    _tables,
)

_LONGEST_S = 5.0
_ODD: list[Any] = [None, -1, 0, 1, 1 << 47, 1 << 63, 1 << 70, 1.5, True, "", "x", "alloc", [], {}, [[]], {"a": []}]


def damaged(choose: random.Random) -> bytes:
    """A snapshot, a trace or a log with something wrong in it."""
    kind = choose.randrange(4)
    if kind == 0:
        return _scrambled(made.small_snapshot(), choose)
    if kind == 1:
        return _with_odd_values(choose)
    if kind == 2:
        return _damaged_trace(choose)
    lines = [(choose.choice(("allocate", "free")), choose.randrange(8) << 12, choose.randrange(1 << 20)) for _ in range(20)]
    return _scrambled(made.rmm_log(lines), choose)


def _scrambled(content: bytes, choose: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(choose.randrange(1, 5)):
        at = choose.randrange(len(changed))
        what = choose.randrange(5)
        if what == 0:
            changed[at] = choose.randrange(256)
        elif what == 1:
            del changed[at:]
        elif what == 2:
            del changed[at : at + choose.randrange(1, 20)]
        elif what == 3:
            changed[at:at] = changed[choose.randrange(len(changed)) :][: choose.randrange(1, 40)]
        else:
            changed[at : at + 4] = struct.pack("<I", choose.choice((0, 1, 0x7FFFFFFF, 0xFFFFFFFF)))
        if not changed:
            break
    return bytes(changed)


def _with_odd_values(choose: random.Random) -> bytes:
    """A well-formed pickle whose values are not what belongs there."""
    value = pickle.loads(made.small_snapshot())
    for _ in range(choose.randrange(1, 4)):
        place: Any = value
        for _ in range(8):
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            if not keys:
                break
            key = choose.choice(keys)
            if choose.random() < 0.25 or not isinstance(place[key], (dict, list)):
                if choose.random() < 0.2:
                    del place[key]
                else:
                    place[key] = choose.choice(_ODD)
                break
            place = place[key]
    return pickle.dumps(value, protocol=choose.choice((2, 4)))


def _damaged_trace(choose: random.Random) -> bytes:
    of = choose.random()
    events = made.busy_trace() if of < 0.3 else report_recount.random_run(choose.randrange(50)) if of < 0.5 else made.random_trace(choose.randrange(50), 60)
    if choose.random() < 0.5:
        return _scrambled(made.trace(events), choose)
    # Right checksums around wrong records.
    for _ in range(choose.randrange(1, 10)):
        event = choose.choice(events)
        name = choose.choice(("action", "address", "bytes", "detail", "placement", "device", "stream", "thread", "time_ns"))
        limit = {"action": 255, "detail": 255, "placement": 255, "thread": (1 << 32) - 1, "device": 127}.get(name, (1 << 63) - 1)
        odd = choose.choice((0, 1, limit, choose.randrange(limit)))
        if name in ("bytes", "device") and choose.random() < 0.3:
            odd = -odd
        setattr(event, name, odd)
    return made.trace(events, choose.random() < 0.8)


def check(path: str) -> None:
    """EbbtideError in one line, or every view of a report."""
    recording = _reading.read(path)
    device = _console.busiest(recording, None)
    if device is None:
        return
    saving = _planned.saving(device, 0.01)
    assert _console.five_lines(recording, device, saving).count("\n") == 5
    for view in (_tables.peak, _tables.owners, _tables.segments, _tables.over_time):
        assert view(device)
    for view in (_activity_tables.streams_text, _activity_tables.swaps_text):
        assert view(device)
    assert _out_of_memory.explain(recording, device, saving)
    itself = _tables.Compared(path, device, saving)
    assert _tables.compared(itself, itself)
    _json_form.render(recording, {device.index: saving}, None)
    if device.activity is not None:
        _perfetto.render(recording)
        _page.render(recording, device, saving, itself)


def run(cases: int, seed: int) -> int:
    """How many cases passed; an AssertionError names the first that did not."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "file")
        for case in range(cases):
            content = damaged(random.Random(f"{seed} {case}"))
            pathlib.Path(path).write_bytes(content)
            begin = time.process_time()
            try:
                check(path)
            except EbbtideError as error:
                assert "\n" not in str(error), f"seed {seed} case {case}: {error}"
            except BaseException as error:
                raise AssertionError(f"seed {seed} case {case}: {error!r}") from error
            assert time.process_time() - begin < _LONGEST_S, f"seed {seed} case {case} is slow"
    return cases


if __name__ == "__main__":
    wanted = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    with contextlib.suppress(KeyboardInterrupt):
        for first in range(0, wanted, 1000):
            run(min(1000, wanted - first), first)
            print(f"{min(first + 1000, wanted)} cases", flush=True)
