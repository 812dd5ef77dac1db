"""RMM's logs (rmm::mr::logging_resource_adaptor, `rmm.enable_logging`) as recordings.

Lines of Thread,Time,Action,Pointer,Size,Stream; actions allocate, free, allocate failure. The time of day counts on
over midnight. A log says what was asked for, not what its allocator held from the device.
"""

from __future__ import annotations

import csv
import io

import numpy as np

from .._errors import EbbtideError
from ._categories import categories_of
from ._model import NO_STACK, Blocks, Device, Failure, Phase, Recording, Segments, check_bytes, check_sum, growing_times, rounded

_COLUMNS = ("Thread", "Time", "Action", "Pointer", "Size", "Stream")
_DAY_NS = 24 * 3600 * 10**9


def looks_like_one(content: bytes) -> bool:
    header = content.split(b"\n", 1)[0].strip().lower()
    return header.startswith(b"thread,time,action,pointer,size")


def read(content: bytes, source: str) -> Recording:
    """EbbtideError in one line, with the line's number, if a line is wrong; a cut last line is only noted."""
    rows: list[tuple[int, ...]] = []
    times: list[int] = [0]
    alive: dict[int, tuple[int, int, int]] = {}
    failures: list[Failure] = []
    unknown_frees, damage = 0, ""
    lines = csv.reader(io.StringIO(content.decode(errors="replace")))
    number = 0
    try:
        columns = [name.strip().lower() for name in next(lines)]
        places = [columns.index(name.lower()) for name in _COLUMNS]
        for number, line in enumerate(lines, 2):
            if not line:
                continue
            if len(line) <= max(places):
                if not content.endswith(b"\n") and next(lines, None) is None:
                    damage = f"ends inside line {number}"
                    break
                raise ValueError(f"{len(line)} columns")
            _, time, action, pointer, size, stream = (line[place].strip() for place in places)
            state = len(times)
            times.append(_time_ns(time, times[-1]))
            if action == "allocate failure":
                failures.append(Failure(state, check_bytes(int(size)), None, NO_STACK, _address(stream)))
                continue
            address = _address(pointer)
            old = alive.pop(address, None)
            if old is not None:
                rows.append(_row(address, old, state))
            if action == "allocate":
                alive[address] = (check_bytes(int(size)), state, _address(stream))
            elif action != "free":
                raise ValueError(f"unknown action {action[:40]!r}")
            elif old is None:
                unknown_frees += 1
    except (ValueError, csv.Error) as error:
        raise EbbtideError(f"{source}:{max(number, 1)}: {error}") from None
    rows += [_row(address, block, len(times)) for address, block in alive.items()]
    device = _device(rows, times, failures, source)
    if unknown_frees:
        device.notes.append(f"{unknown_frees} frees of what the log does not show allocated")
    return Recording(source, "RMM log", [device], damage, events=len(times) - 1)


def _device(rows: list[tuple[int, ...]], times: list[int], failures: list[Failure], source: str) -> Device:
    blocks = Blocks.of_rows(rows)
    try:
        check_sum(blocks.held)
    except ValueError as error:
        raise EbbtideError(f"{source}: {error}") from None
    blocks.category = categories_of(blocks, len(times))
    if len(times) > 1:
        times[0] = times[1]
    none = Segments.of_rows([])
    grown = growing_times(np.array(times, np.int64))
    owners = [NO_STACK]
    return Device(0, len(times), grown, blocks, none, False, owners, failures=failures)


def _row(address: int, block: tuple[int, int, int], end: int) -> tuple[int, ...]:
    size, birth, stream = block
    return (address, size, rounded(size), birth, end, end, stream, 0, Phase.UNKNOWN, 0)


def _address(text: str) -> int:
    if text in ("(nil)", "nullptr", "default"):
        return 0
    # RMM writes addresses and streams in hexadecimal, with or without 0x.
    value = int(text, 16)
    if not 0 <= value < 1 << 64:
        raise ValueError(f"{text[:40]!r} is no address")
    return value


def _time_ns(text: str, before: int) -> int:
    """Of "HH:MM:SS:microseconds", or with a point, as it was before 2022 and is since."""
    clock, _, fraction = text.replace(".", ":").rpartition(":")
    hours, minutes, seconds = (int(part) for part in clock.split(":"))
    if not (0 <= hours < 24 and 0 <= minutes < 60 and 0 <= seconds <= 60) or not fraction.isdigit():
        raise ValueError(f"{text[:40]!r} is no time")
    within = int(fraction[:9].ljust(9, "0")) if "." in text else int(fraction[:6]) * 1000
    time = ((hours * 60 + minutes) * 60 + seconds) * 10**9 + within
    # A clock that jumped far back has passed midnight.
    days = before // _DAY_NS
    while before - (time + days * _DAY_NS) > _DAY_NS // 2 and days < 10**5:
        days += 1
    return time + days * _DAY_NS
