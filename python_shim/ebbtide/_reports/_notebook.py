"""The report of a running program: text everywhere, a picture where a notebook asks for one."""

from __future__ import annotations

import html
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .._stats import Stats

_FRAME = '<iframe srcdoc="{}" style="width:100%;height:900px;border:0" title="Ebbtide report"></iframe>'


class Report(str):
    """The five lines of each device, as a str. In a notebook: the page of the trace, if one is written
    (EBBTIDE_TRACE; numpy is needed), else bars of what is alive and held."""

    def _repr_html_(self) -> str:
        from .._errors import EbbtideError

        trace = os.environ.get("EBBTIDE_TRACE", "")
        try:
            if trace:
                return _FRAME.format(html.escape(page_of(trace)))
        except (EbbtideError, ImportError):
            pass  # no event is in it yet, or numpy is missing: the numbers at hand are still true
        from .._stats import devices, read

        return f"<pre>{html.escape(self)}</pre>" + bars([read(device) for device in devices()])


def page_of(trace: str) -> str:
    """The page of a trace that is still being written, up to its last block. EbbtideError without an event."""
    from .._errors import EbbtideError
    from . import _console, _page, _planned, _reading

    recording = _reading.read(trace)
    recording.damage = ""  # it ends early because the program runs
    device = _console.busiest(recording, None)
    if device is None:
        raise EbbtideError(f"{trace} has no events yet")
    return _page.render(recording, device, _planned.saving(device, 1.0))


def bars(devices: Sequence[Stats]) -> str:
    """Live, reserved and their peaks, to one scale."""
    from .._report import device_name, size_text

    scale = max((device.peak_reserved_bytes or device.peak_live_bytes for device in devices), default=0) or 1
    rows = []
    for device in devices:
        for name, size in (
            ("live", device.live_bytes),
            ("peak live", device.peak_live_bytes),
            ("reserved", device.reserved_bytes),
            ("peak reserved", device.peak_reserved_bytes),
        ):
            rows.append(
                f'<tr><th scope="row">{device_name(device.device)} {name}</th><td>{size_text(size)}</td>'
                f'<td style="width:320px"><div style="width:{100 * size / scale:.1f}%;height:12px;background:#2f6db5"></div></td></tr>'
            )
    return f"<table>{''.join(rows)}</table>"
