"""Why an allocation failed: what was asked for, what was free and does not fit, who holds the most, what to change."""

from __future__ import annotations

from .._report import size_text
from ._console import parts_text
from ._figures import largest_at, owners_at, split_at, stretches_at
from ._model import NO_STACK, Device, Failure, Recording
from ._planned import Saving
from ._stacks import of_program

_MOST_OWNERS = 5
_MOST_FRAMES = 6


def explain(recording: Recording, device: Device, saving: Saving | None) -> str:
    """The last failure of a device, or its end where the file shows none; lines, each ended by a newline."""
    failure = device.failures[-1] if device.failures else None
    state = failure.state if failure else device.states - 1
    lines = [_asked(device, failure), *_asked_from(device, failure), *_held(device, state, failure), *_owners(device, state)]
    lines += [f"What to change: {text}" for text in _advice(device, state, failure, saving)]
    return "".join(line + "\n" for line in lines)


def _asked(device: Device, failure: Failure | None) -> str:
    if failure is None:
        return f"No failure is in the file; this is {device.name} at its end."
    line = f"Out of memory on {device.name}: {size_text(failure.asked)} asked for"
    if failure.owner != NO_STACK:
        line += f" by {failure.owner}"
    if device.seconds:
        line += f", {float(device.times_ns[failure.state] - device.times_ns[0]) / 1e9:.3f} s from the beginning"
    earlier = len(device.failures) - 1
    return line + (f" (after {earlier} earlier failures)" if earlier > 0 else "") + "."


def _asked_from(device: Device, failure: Failure | None) -> list[str]:
    frames = device.frames_of(failure.stack) if failure is not None else ()
    return [f"    at {frame}" for frame in of_program(frames, _MOST_FRAMES)]


def largest_free(device: Device, state: int) -> int | None:
    """The largest stretch of one segment that no block holds; None without segments."""
    begins, sizes = stretches_at(device, state)
    if not len(begins):
        return None
    blocks = device.blocks
    there = ((blocks.birth <= state) & (state < blocks.release)).nonzero()[0]
    taken = sorted((int(blocks.address[i]), int(blocks.held[i])) for i in there)
    largest, at = 0, 0
    for begin, size in zip(begins.tolist(), sizes.tolist(), strict=True):
        filled = begin
        while at < len(taken) and taken[at][0] < begin + size:
            largest = max(largest, taken[at][0] - filled)
            filled = max(filled, taken[at][0] + taken[at][1])
            at += 1
        largest = max(largest, begin + size - filled)
    return largest


def _held(device: Device, state: int, failure: Failure | None) -> list[str]:
    split = split_at(device, state)
    lines = [f"Held: {parts_text(split)}."]
    largest = largest_free(device, state)
    if largest is not None:
        free = sum(size for size in (split.stranded, split.cached) if size is not None)
        line = f"Free inside what is reserved: {size_text(free)}, the largest piece {size_text(largest)}"
        if failure is not None and largest >= failure.asked:
            line += ", which would have been large enough: it is another pool's or stream's"
        lines.append(line + ".")
    if failure is not None and failure.device_free is not None:
        lines.append(f"The device itself had {size_text(failure.device_free)} free.")
    return lines


def _owners(device: Device, state: int) -> list[str]:
    shares = owners_at(device, state)[:_MOST_OWNERS]
    if not shares:
        return []
    named = ", ".join(f"{share.name} {size_text(share.size)} ({share.blocks})" for share in shares)
    (largest,) = largest_at(device, state, 1)
    return [
        f"Largest owners, with their blocks: {named}.",
        f"Largest block: {size_text(int(device.blocks.size[largest]))} of {device.owners[device.blocks.owner[largest]]}.",
        *(f"    made at {frame}" for frame in of_program(device.frames_of(int(device.blocks.stack[largest])), _MOST_FRAMES)),
    ]


def _advice(device: Device, state: int, failure: Failure | None, saving: Saving | None) -> list[str]:
    split = split_at(device, state)
    advice = []
    free = sum(size for size in (split.stranded, split.cached, split.unsplit) if size is not None)
    free += (failure.device_free or 0) if failure else 0
    if failure is not None and free >= failure.asked:
        advice.append(
            f"{size_text(free)} are free, in pieces: EBBTIDE=1, which plans one arena, or "
            "PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True"
        )
    if saving is not None and saving.share is not None and saving.share > 0.01:
        advice.append(
            f"a plan needs {size_text(saving.plan)} for what reserved {size_text(saving.reserved or 0)} "
            f"up to here: EBBTIDE=1 leaves {size_text((saving.reserved or 0) - saving.plan)} more"
        )
    if not advice or failure is not None and free < failure.asked:
        advice.append(
            "less may be alive at once: EBBTIDE_OFFLOAD=auto, activation checkpointing, a smaller batch or length"
        )
    return advice
