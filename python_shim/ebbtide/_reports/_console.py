"""The five lines of a recording that is not ours, and the line about what a plan would save of any."""

from __future__ import annotations

from .._report import size_text
from ._figures import Share, Split, live_curve, owners_at, peak_reserved, peak_state, split_at
from ._model import Device, Recording
from ._planned import Saving

_MOST_OWNERS = 3


def busiest(recording: Recording, index: int | None) -> Device | None:
    """The device asked for, or the one with the highest peak of live bytes; None if there is none."""
    if index is not None:
        return next((device for device in recording.devices if device.index == index), None)
    return max(recording.devices, key=lambda device: int(live_curve(device).max()), default=None)


def five_lines(recording: Recording, device: Device, saving: Saving | None) -> str:
    """Each ended by a newline."""
    lines = (_live(recording, device), _reserved(device), _split(device), _owners(device), saving_line(saving, device.is_served))
    return "".join(" ".join(line.splitlines()) + "\n" for line in lines)


def percent(part: float, whole: float) -> str:
    return "0.0 %" if not whole else f"{100 * part / whole:.1f} %"


def saving_line(saving: Saving | None, is_served: bool) -> str:
    if saving is None:
        return "  Ebbtide would have saved: not known, no plan was made"
    plan = f"plan {size_text(saving.plan)}" + ("" if saving.is_lowest else f" (lower bound {size_text(saving.lower_bound)})")
    if saving.share is None or saving.reserved is None:
        return f"  Ebbtide would have needed: {plan}; what was reserved is not in the file"
    numbers = f"reserved {size_text(saving.reserved)}, {plan}"
    if saving.share <= 0:
        return f"  Ebbtide would have saved: nothing; {numbers}"
    said = "left to save" if is_served else "Ebbtide would have saved"
    return f"  {said}: {numbers}, {100 * saving.share:.1f} %"


def _live(recording: Recording, device: Device) -> str:
    line = f"ebbtide report ({recording.kind}, {device.name}): peak live {size_text(int(live_curve(device).max()))}"
    line += f" of {len(device.blocks)} blocks in {device.states - 1} events"
    if device.seconds:
        line += f", {device.seconds:.3f} s"
    others = [other.name for other in recording.devices if other is not device]
    if others:
        line += f"; also in the file: {', '.join(others)}"
    if recording.damage:
        line += f"; the file {recording.damage}"
    return line


def _reserved(device: Device) -> str:
    reserved = peak_reserved(device)
    if reserved is None:
        return "  peak reserved: not in the file"
    live = int(live_curve(device).max())
    line = f"  peak reserved {size_text(reserved)}"
    return f"{line}, fragmentation {100 * (reserved / live - 1):.1f} %" if live else line


def _split(device: Device) -> str:
    split = split_at(device, peak_state(device))
    return "  at the peak: " + parts_text(split)


def parts_text(split: Split) -> str:
    """Those that are not 0."""
    return " | ".join(f"{name} {size_text(size)}" for name, size in split.parts if size) or "nothing"


def _owners(device: Device) -> str:
    shares = owners_at(device, peak_state(device))
    if not shares:
        return "  largest owners: nothing was alive"
    whole = sum(share.size for share in shares)
    named = ", ".join(_share_text(share, whole) for share in shares[:_MOST_OWNERS])
    return f"  largest owners: {named}"


def _share_text(share: Share, whole: int) -> str:
    return f"{share.name} {size_text(share.size)} ({percent(share.size, whole)})"
