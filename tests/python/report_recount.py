"""The JSON of `ebbtide report` once more, from the raw events of a trace: loops that share no code with the package."""

from __future__ import annotations

import random
from typing import Any

import report_files as made

PHASES = ["unknown", "setup", "forward", "backward", "optimizer"]
PHASE_OF_MARK = {1: "forward", 2: "forward", 3: "optimizer"}
MARKS = ["step", "forward", "inference", "optimizer", "optimizer end"]
KEPT = {"setup": "parameters", "forward": "activations", "backward": "gradients", "optimizer": "optimizer state"}
NOBODY = {"setup": "before the first iteration", "backward": "backward", "optimizer": "optimizer"}
CATEGORIES = ["parameters", "gradients", "optimizer state", "activations", "workspaces", "from before the recording", "unknown"]
OF_NO_DEVICE = (made.NAME, made.OWNER, made.FRAME, made.STACK)


def random_run(seed: int) -> list[made.Event]:
    """A random history with modules, stacks, failures, and what was made in a backward."""
    choose = random.Random(seed)
    names = ["model.layers.0", "model.layers.1.mlp", "/me/train.py:9 main", "/me/model.py:4 forward", "/me/model.py:5 forward"]
    events = [record for number, text in enumerate(names, 1) for record in made.name(number, text)]
    frames = [(3, 0), (4, 1), (5, 1)]
    events += [made.Event(made.FRAME, text, caller, device=made.NO_DEVICE, thread=i) for i, (text, caller) in enumerate(frames, 1)]
    for event in made.random_trace(seed, 300):
        if choose.random() < 0.2:
            events.append(made.Event(made.OWNER, bytes=choose.choice([0, 1, 2]), device=made.NO_DEVICE))
        if choose.random() < 0.3:
            events.append(made.Event(made.STACK, bytes=choose.choice([0, 2, 3]), device=made.NO_DEVICE))
        if choose.random() < 0.02:
            events.append(made.Event(made.OUT_OF_MEMORY, 777, 1 << 33))
        events.append(event)
    return events


def texts_of(events: list[made.Event]) -> dict[int, str]:
    texts: dict[int, bytes] = {}
    for e in events:
        if e.action == made.NAME:
            piece = e.address.to_bytes(8, "little") + e.bytes.to_bytes(8, "little", signed=True) + e.stream.to_bytes(8, "little")
            texts[e.thread] = texts.get(e.thread, b"") + piece[: e.detail]
    return {number: text.decode() for number, text in texts.items()}


def stack_of(events: list[made.Event], number: int) -> list[str]:
    texts = texts_of(events)
    frames = []
    while number:
        (frame,) = (e for e in events if e.action == made.FRAME and e.thread == number)
        frames.append(texts[frame.address])
        number = frame.bytes
    return frames


def phases_of(events: list[made.Event]) -> list[str]:
    """Of each event of the device."""
    phase, phases = "setup", []
    for i, e in enumerate(events):
        if e.action == made.MARK:
            phase = PHASE_OF_MARK.get(e.detail, "unknown")
        rest = []  # up to the next mark
        for later in events[i:]:
            if later.action == made.MARK and later is not e:
                break
            rest.append(later)
        is_backward = e.action in (made.ALLOCATE, made.UPSTREAM_ALLOCATE) and e.detail & 1
        # A forward is over with its backward.
        last = not any(later.action in (made.ALLOCATE, made.UPSTREAM_ALLOCATE) and later.detail & 1 for later in rest)
        began = any(
            other.action in (made.ALLOCATE, made.UPSTREAM_ALLOCATE) and other.detail & 1 for other in since_mark(events, i)
        )
        phases.append("backward" if is_backward else "unknown" if phase == "forward" and last and began else phase)
    return phases


def since_mark(events: list[made.Event], i: int) -> list[made.Event]:
    begin = max((k for k in range(i + 1) if events[k].action == made.MARK), default=0)
    return events[begin:i]


def blocks_of(events: list[made.Event]) -> list[dict[str, Any]]:
    """All blocks of device 0, in the order of their births."""
    texts, own = texts_of(events), [e for e in events if e.action not in OF_NO_DEVICE]
    phases = phases_of(own)
    owner = stack = state = 0
    alive: dict[int, dict[str, Any]] = {}
    blocks = []
    for e in events:
        if e.action == made.OWNER:
            owner = e.bytes
        elif e.action == made.STACK:
            stack = e.bytes
        if e.action in OF_NO_DEVICE:
            continue
        state += 1
        if e.action in (made.ALLOCATE, made.UPSTREAM_ALLOCATE):
            phase = phases[state - 1]
            block = {"address": e.address, "size": e.bytes, "birth": state, "death": len(own) + 1, "phase": phase, "stack": stack,
                     "owner": texts[owner] if owner else NOBODY.get(phase, "no module"), "upstream": e.action == made.UPSTREAM_ALLOCATE}  # fmt: skip
            old = alive.get(e.address)
            if old is not None and old["upstream"] and not block["upstream"]:
                old.update(block | {"birth": old["birth"]})  # the engine's block is upstream's
            else:
                blocks.append(block)
                alive[e.address] = block
        elif e.action in (made.FREE, made.UPSTREAM_FREE) and e.address in alive:
            alive.pop(e.address)["death"] = state
    return blocks


def category_of(block: dict[str, Any], blocks: list[dict[str, Any]], states: int) -> str:
    if block["phase"] == "unknown":
        return "unknown"
    later = blocks[blocks.index(block) + 1 :]
    ends = [other["birth"] for other in later if other["phase"] not in ("unknown", block["phase"])]
    if block["death"] < states and block["death"] <= (ends[0] if ends else states):
        return "workspaces"
    forwards = [other["birth"] for other in blocks if other["phase"] == "forward"]
    is_input = block["phase"] == "setup" and forwards and block["birth"] > forwards[0] and block["death"] < states
    return "unknown" if is_input else KEPT[block["phase"]]


def shares(sums: dict[str, list[int]], order: Any) -> list[dict[str, Any]]:
    return [{"name": name, "size": size, "blocks": count} for name, (size, count) in sorted(sums.items(), key=order)]


def summed(blocks: list[dict[str, Any]], key: Any) -> dict[Any, list[int]]:
    sums: dict[Any, list[int]] = {}
    for block in blocks:
        pair = sums.setdefault(key(block), [0, 0])
        pair[0] += block["size"]
        pair[1] += 1
    return sums


def bytes_of(count: made.Count) -> dict[str, Any]:
    return {
        "requested": count.requested, "rounding": count.held - count.requested, "waiting": 0, "cached": count.empty,
        "stranded": count.reserved - count.held - count.empty, "unsplit": None, "reserved": count.reserved,
        "not_torch": None if count.used is None else count.used - count.reserved, "device_used": count.used, "libraries": None,
    }  # fmt: skip


def device_of(events: list[made.Event]) -> dict[str, Any]:
    """All of a device's object but its timeline and saving."""
    own = [(1000 * (i + 1), e) for i, e in enumerate(events) if e.action not in OF_NO_DEVICE]
    times = [own[0][0], *(time for time, _ in own)]
    counts = made.counts_of_trace(events, 0)
    blocks, states = blocks_of(events), len(counts)
    live = [count.requested for count in counts]
    peak = live.index(max(live))
    there = [block for block in blocks if block["birth"] <= peak < block["death"]]
    reserved = max(count.reserved for count in counts)
    ranges: dict[int, int] = {}
    for _, e in own[:peak]:
        if e.action == made.SEGMENT_TAKEN:
            ranges[e.address] = e.bytes
        elif e.action == made.SEGMENT_GIVEN_BACK:
            del ranges[e.address]
    held = lambda size: -(-size // made.GRANULE) * made.GRANULE  # noqa: E731
    taken = {begin: sum(held(b["size"]) for b in there if begin <= b["address"] < begin + size) for begin, size in ranges.items()}
    owner = stack = 0
    failures = []
    for i, e in enumerate(events):
        owner = e.bytes if e.action == made.OWNER else owner
        stack = e.bytes if e.action == made.STACK else stack
        if e.action == made.OUT_OF_MEMORY:
            at = sum(1 for other in events[: i + 1] if other.action not in OF_NO_DEVICE)
            failures.append({"state": at, "asked": e.bytes, "device_free": e.address, "stream": 0, "frames": stack_of(events, stack),
                             "owner": texts_of(events)[owner] if owner else "no module"})  # fmt: skip
    by_stack = summed([b for b in there if b["stack"]], lambda b: (b["owner"], b["phase"], b["stack"]))
    return {
        "device": 0, "name": "cuda:0", "events": states - 1, "blocks": len(blocks), "seconds": (times[-1] - times[0]) / 1e9,
        "peak_live_bytes": max(live), "peak_reserved_bytes": reserved, "fragmentation": reserved / max(live) - 1,
        "peak": {
            "event": peak, "time_ns": times[peak], "bytes": bytes_of(counts[peak]),
            "categories": shares(summed(there, lambda b: category_of(b, blocks, states)), lambda pair: CATEGORIES.index(pair[0])),
            "owners": shares(summed(there, lambda b: b["owner"]), lambda pair: (-pair[1][0], pair[0])),
            "stacks": sorted(
                ({"owner": o, "phase": p, "size": size, "blocks": n, "frames": stack_of(events, s)}
                 for (o, p, s), (size, n) in by_stack.items()), key=lambda share: -share["size"],
            ),
            "segments": [{"address": a, "size": s, "taken": taken[a]} for a, s in sorted(ranges.items())],
        },
        "end": {"event": states - 1, "bytes": bytes_of(counts[-1])},
        "failures": failures,
        "marks": [{"event": i, "name": MARKS[e.detail]} for i, (_, e) in enumerate(own, 1) if e.action == made.MARK],
        "notes": [], "streams": None, "swaps": None,
    }  # fmt: skip
