"""Recordings made by hand: snapshots, traces and logs in a few lines, and a plain count of what they say.

The count shares no code with the package: a loop over the events as they lie in the file.
"""

from __future__ import annotations

import dataclasses
import pickle
import random
import struct
import zlib
from typing import Any

GRANULE = 512
# allocator/base/event.h
ALLOCATE, FREE, MARK, ROUND, PLAN, RESERVED = 1, 2, 4, 5, 6, 10
SEGMENT_TAKEN, SEGMENT_GIVEN_BACK, UPSTREAM_ALLOCATE, UPSTREAM_FREE = 11, 12, 13, 14
DEVICE_USED, OUT_OF_MEMORY, NAME, OWNER = 15, 16, 17, 18
KERNEL, COPY, MEMSET, CUDA_ALLOCATE, CUDA_FREE, ACTIVITY_COUNT = 19, 20, 21, 22, 23, 24
SWAP_OUT, SWAP_IN, SWAP_RELEASE, SWAP_COPIED, PINNED, DECISION = 25, 26, 27, 28, 29, 30
FRAME, STACK = 31, 32
NO_DEVICE = -128
_HEADER = struct.Struct("<8sIIII")
_FRAME = struct.Struct("<IIQQII")
_EVENT = struct.Struct("<QQQqQIBBBb")


def frame(name: str, filename: str, line: int = 1) -> dict[str, Any]:
    return {"name": name, "filename": filename, "line": line}


MODEL = [frame("forward", "/home/me/train/model.py", 7), frame("<module>", "/home/me/train/main.py", 30)]
SETUP = [frame("<module>", "/home/me/train/main.py", 3)]
STEP = [frame("step", "/x/site-packages/torch/optim/adamw.py", 9), frame("<module>", "/home/me/train/main.py", 32)]
BACKWARD = [frame("torch::autograd::generated::MmBackward0::apply(x)", "??"), frame("torch::autograd::Engine::run()", "??")]


def entry(action: str, address: int, size: int, time_us: int = 0, frames: Any = (), **more: Any) -> dict[str, Any]:
    key = "device_free" if action == "oom" else "addr"
    return {"action": action, key: address, "size": size, "stream": 0, "time_us": time_us, "frames": list(frames), **more}


def segment(address: int, blocks: list[tuple[int, int, str]], **more: Any) -> dict[str, Any]:
    """Blocks of (size, requested, state)."""
    given = [{"size": s, "requested_size": r, "state": state, "frames": []} for s, r, state in blocks]
    whole = sum(size for size, _, _ in blocks)
    return {"device": 0, "address": address, "total_size": whole, "stream": 0, "blocks": given, **more}


def snapshot(trace: list[dict[str, Any]], segments: list[dict[str, Any]], **more: Any) -> bytes:
    return pickle.dumps({"segments": segments, "device_traces": [trace], **more}, protocol=4)


@dataclasses.dataclass
class Event:
    """One record of a trace; the fields of EventRecord."""

    action: int
    address: int = 0
    bytes: int = 0
    detail: int = 0
    placement: int = 0
    device: int = 0
    stream: int = 0
    thread: int = 1
    time_ns: int = 0


def trace(events: list[Event], is_complete: bool = True, block: int = 100) -> bytes:
    """A trace file as profiler/trace_format.h has it."""

    def with_crc(packer: struct.Struct, *fields: Any) -> bytes:
        packed = packer.pack(*fields, 0)
        return packed[:-4] + struct.pack("<I", zlib.crc32(packed[:-4]))

    content = with_crc(_HEADER, b"EBBTRACE", 0x01020304, 1, _EVENT.size)
    for first in range(0, len(events), block):
        part = events[first : first + block]
        records = b"".join(
            _EVENT.pack(
                first + i, e.time_ns or 1000 * (first + i + 1), e.address, e.bytes, e.stream, e.thread, e.action,
                e.placement, e.detail, e.device,
            )
            for i, e in enumerate(part)
        )
        content += with_crc(_FRAME, 0x4B4C4245, len(part), first, 0, zlib.crc32(records)) + records
    return content + (with_crc(_FRAME, 0x444E4545, 0, len(events), 0, 0) if is_complete else b"")


def name(number: int, text: str) -> list[Event]:
    """The records of a name: 24 bytes in each."""
    content, pieces = text.encode(), []
    for at in range(0, len(content), 24):
        piece = content[at : at + 24]
        address, size, stream = struct.unpack("<QqQ", piece.ljust(24, b"\0"))
        pieces.append(Event(NAME, address, size, len(piece), device=NO_DEVICE, stream=stream, thread=number))
    return pieces


def busy_trace() -> list[Event]:
    """Two steps of a model of two layers that swaps, with what CUPTI told of it: times are microseconds from 1 s on."""
    mib = 1 << 20
    base, second, us = 1 << 40, 10**9, 1000
    at = lambda microseconds: second + microseconds * us  # noqa: E731
    names = ["gemm(float*, int)", "add_kernel", "libnccl.so.2", "model.layers.0", "model.layers.1.mlp", "model.layers.1"]
    events = [record for number, text in enumerate(names, 1) for record in name(number, text)]
    events += [
        Event(ACTIVITY_COUNT, device=NO_DEVICE, time_ns=at(0)),
        Event(SEGMENT_TAKEN, base, 64 * mib, time_ns=at(2)),
        Event(DEVICE_USED, 1 << 37, 300 * mib, time_ns=at(3)),
        Event(ALLOCATE, base, 8 * mib, time_ns=at(4)),
        Event(PINNED, bytes=40 * mib, time_ns=at(5)),
    ]
    # Told late, in any order: torch's own segment, NCCL's memory, pinned memory, another device.
    events += [
        Event(CUDA_ALLOCATE, base + 128 * mib, 96 * mib, 3, stream=3, time_ns=at(1)),
        Event(CUDA_ALLOCATE, base, 64 * mib, 3, time_ns=at(1)),
        Event(CUDA_ALLOCATE, 1 << 20, 40 * mib, 2, time_ns=at(4)),
        Event(CUDA_ALLOCATE, base + 512 * mib, mib, 3, device=1, time_ns=at(4)),
        Event(CUDA_ALLOCATE, base + 256 * mib, 4 * mib, 3, time_ns=at(2)),
        Event(CUDA_FREE, base + 256 * mib, time_ns=at(90)),
    ]
    for step in range(2):
        begin = 100 + 1000 * step
        ticket = 2 * step + 1
        events += [
            Event(MARK, detail=1, time_ns=at(begin)),
            Event(OWNER, bytes=4, device=NO_DEVICE, time_ns=at(begin)),
            Event(ALLOCATE, base + 8 * mib, 16 * mib, time_ns=at(begin + 1)),
            Event(SWAP_OUT, ticket, 16 * mib, time_ns=at(begin + 100)),
            Event(FREE, base + 8 * mib, time_ns=at(begin + 101)),
            Event(OWNER, bytes=5, device=NO_DEVICE, time_ns=at(begin + 102)),
            Event(SWAP_OUT, ticket + 1, 16 * mib, stream=16 * mib, time_ns=at(begin + 200)),
            Event(OWNER, bytes=0, device=NO_DEVICE, time_ns=at(begin + 250)),
            Event(DEVICE_USED, 1 << 37, 300 * mib, time_ns=at(begin + 300)),
            Event(SWAP_IN, ticket + 1, 16 * mib, time_ns=at(begin + 400)),
            Event(SWAP_RELEASE, ticket + 1, 16 * mib, time_ns=at(begin + 500)),
            Event(SWAP_IN, ticket, 8 * mib, time_ns=at(begin + 600)),
            Event(SWAP_RELEASE, ticket, 16 * mib, time_ns=at(begin + 700)),
            # by layer: 0 swaps 16 MiB and recomputes 4, 1 swaps 16 MiB and keeps 2
            Event(DECISION, 4, 16 * mib, 1, time_ns=at(begin + 800)),
            Event(DECISION, 4, 4 * mib, 2, time_ns=at(begin + 800)),
            Event(DECISION, 6, 16 * mib, 1, time_ns=at(begin + 800)),
            Event(DECISION, 6, 2 * mib, 0, time_ns=at(begin + 800)),
            Event(KERNEL, 1, 300 * us, stream=7, time_ns=at(begin + 50)),
            Event(KERNEL, 2, 100 * us, stream=7, time_ns=at(begin + 400)),
            Event(MEMSET, 10 * us, mib, stream=7, time_ns=at(begin + 500)),
            Event(COPY, 150 * us, 16 * mib, 2, stream=13, time_ns=at(begin + 100)),
            Event(COPY, 100 * us, 16 * mib, 1, stream=14, time_ns=at(begin + 450)),
        ]
        for number, is_in, start, length, exposed in (
            (ticket, 0, 100, 150, 0), (ticket + 1, 0, 250, 100, 30), (ticket + 1, 1, 450, 100, 0), (ticket, 1, 600, 60, 60),
        ):  # fmt: skip
            events.append(Event(SWAP_COPIED, number, length * us, is_in, stream=exposed * us, time_ns=at(begin + start)))
    events.append(Event(ACTIVITY_COUNT, 14, 3, device=NO_DEVICE, time_ns=at(2200)))
    return events


def events_of(content: bytes) -> list[Event]:
    """The records of a trace file."""
    at, events = _HEADER.size, []
    while at + _FRAME.size <= len(content):
        mark, count, *_ = _FRAME.unpack_from(content, at)
        at += _FRAME.size
        for _ in range(count if mark == 0x4B4C4245 else 0):
            _, time, address, size, stream, thread, action, placement, detail, device = _EVENT.unpack_from(content, at)
            events.append(Event(action, address, size, detail, placement, device, stream, thread, time))
            at += _EVENT.size
    return events


@dataclasses.dataclass
class Count:
    """What one state of a recording holds."""

    requested: int
    held: int
    reserved: int
    empty: int  # in segments that hold nothing
    used: int | None = None


def counts_of_trace(events: list[Event], device: int) -> list[Count]:
    """State after state of a device, from the raw events."""
    alive: dict[int, int] = {}
    ranges: dict[int, int] = {}
    used: int | None = None
    counts = [Count(0, 0, 0, 0)]
    for e in events:
        if e.device != device:
            continue
        if e.action in (ALLOCATE, UPSTREAM_ALLOCATE):
            alive[e.address] = e.bytes
        elif e.action in (FREE, UPSTREAM_FREE):
            alive.pop(e.address, None)
        elif e.action == SEGMENT_TAKEN:
            ranges[e.address] = e.bytes
        elif e.action == SEGMENT_GIVEN_BACK:
            ranges.pop(e.address)
        elif e.action == DEVICE_USED:
            used = e.bytes
        counts.append(_count(alive, ranges, used))
    return counts


def _count(alive: dict[int, int], ranges: dict[int, int], used: int | None) -> Count:
    held = {address: max(GRANULE, -(-size // GRANULE) * GRANULE) for address, size in alive.items()}
    empty = 0
    for begin, size in ranges.items():
        if not any(begin <= address < begin + size for address in held):
            empty += size
    return Count(sum(alive.values()), sum(held.values()), sum(ranges.values()), empty, used)


def random_trace(seed: int, length: int = 200) -> list[Event]:
    """Segments, blocks in them, and the device's count; all as an allocator could have done."""
    choose = random.Random(seed)
    ranges: dict[int, int] = {}
    alive: dict[int, int] = {}
    events: list[Event] = []
    while len(events) < length:
        what = choose.random()
        if what < 0.1 or not ranges:
            begin = (1 << 40) + (len(events) << 24)
            ranges[begin] = choose.randrange(1, 64) * 4096
            events.append(Event(SEGMENT_TAKEN, begin, ranges[begin]))
            events.append(Event(DEVICE_USED, 1 << 37, sum(ranges.values()) + 12345))
        elif what < 0.15:
            empty = [b for b, s in ranges.items() if not any(b <= a < b + s for a in alive)]
            if empty:
                begin = choose.choice(empty)
                events.append(Event(SEGMENT_GIVEN_BACK, begin, ranges.pop(begin)))
        elif what < 0.25:
            events.append(Event(MARK, detail=choose.randrange(5)))
        elif what < 0.65:
            begin = choose.choice(list(ranges))
            address = begin + 4096 * choose.randrange(ranges[begin] // 4096)
            if address not in alive:
                alive[address] = choose.randrange(1, 4097)
                if choose.random() < 0.5:  # upstream's block of which the engine knows
                    events.append(Event(UPSTREAM_ALLOCATE, address, alive[address]))
                    events.append(Event(ALLOCATE, address, alive[address], detail=choose.randrange(2)))
                else:
                    events.append(Event(choose.choice((ALLOCATE, UPSTREAM_ALLOCATE)), address, alive[address]))
        elif alive:
            address = choose.choice(list(alive))
            events.append(Event(choose.choice((FREE, UPSTREAM_FREE)), address, alive.pop(address)))
    return events


def rmm_log(lines: list[tuple[str, int, int]]) -> bytes:
    """Lines of (action, address, size), a millisecond apart."""
    text = "Thread,Time,Action,Pointer,Size,Stream\n"
    for i, (action, address, size) in enumerate(lines):
        text += f"38876,14:29:{i // 1000:02}.{i % 1000:03}000,{action},{address:#x},{size},0x0\n"
    return text.encode()


def small_snapshot() -> bytes:
    """One training step: 2 MiB of weights, an activation, a gradient, a step; one block is 24 bytes short of its place."""
    mib = 1 << 20
    base = 1 << 40
    trace = [
        entry("segment_alloc", base, 20 * mib, 10, SETUP),
        entry("alloc", base, 2 * mib, 11, SETUP),
        entry("alloc", base + 2 * mib, 4 * mib - 24, 20, MODEL),
        entry("alloc", base + 6 * mib, mib + 512, 21, MODEL),
        entry("free_requested", base + 6 * mib, mib + 512, 22),
        entry("free_completed", base + 6 * mib, mib + 512, 22),
        entry("alloc", base + 8 * mib, 2 * mib, 30, BACKWARD),
        entry("segment_alloc", 2 * base, 2 * mib, 31, BACKWARD),
        entry("oom", 3 * mib, 40 * mib, 32, MODEL),
        entry("free_requested", base + 2 * mib, 4 * mib - 24, 33),
        entry("free_completed", base + 2 * mib, 4 * mib - 24, 35),
        entry("alloc", base + 2 * mib, 2 * mib, 40, STEP),
    ]
    alive = "active_allocated"
    segments = [
        segment(
            base,
            [
                (2 * mib, 2 * mib, alive),
                (2 * mib, 2 * mib, alive),
                (4 * mib, 0, "inactive"),
                (2 * mib, 2 * mib, alive),
                (10 * mib, 0, "inactive"),
            ],
        ),
        segment(2 * base, [(2 * mib, 0, "inactive")]),
        segment(3 * base, [(mib, mib - 100, alive), (mib, 0, "inactive")]),
    ]
    return snapshot(trace, segments)
