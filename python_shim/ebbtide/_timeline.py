"""A dry run's last steps, the streams' work and memory under it: as a Perfetto trace or a picture."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any
from xml.sax.saxutils import escape

Span = Mapping[str, Any]
Sample = Mapping[str, Any]
_ACTIVITIES = ("matrix", "attention", "other", "copy_out", "copy_in", "collective", "unknown")
_BYTES = (("held", "held"), ("live", "live"), ("pinned", "host, pinned"))
_WIDTH, _LEFT, _RIGHT, _TOP = 1200, 110, 70, 12
_ROW, _MEMORY, _GAP = 34, 150, 34
_GIB = 1 << 30
_STREAM_NAMES = {"copy_out": "copies out", "copy_in": "copies in", "collective": "collectives"}
_THINNEST = 0.1  # pixels; what is thinner is not drawn
_STYLE = """
svg { font: 13px system-ui, sans-serif; background: #ffffff; --text: #222222; --line: #d8d8d8;
  --matrix: #2f6db3; --attention: #7b4fb5; --other: #8a96a3; --copy_out: #2a9d6f; --copy_in: #3fa9cc;
  --collective: #e08a1e; --unknown: #b5b5b5; --stall: #d62f2f; --held: #b9822b; --live: #2f6db3; --pinned: #2a9d6f }
@media (prefers-color-scheme: dark) { svg { background: #16181c; --text: #e6e6e6; --line: #3a3f46;
  --matrix: #5b9be0; --attention: #a481dd; --other: #7d8894; --copy_out: #45c08c; --copy_in: #64c6e6;
  --collective: #f0a548; --unknown: #666666; --stall: #ff5a52; --held: #e0a94e; --live: #5b9be0; --pinned: #45c08c } }
text { fill: var(--text) } .axis { stroke: var(--line) } .curve { fill: none; stroke-width: 1.5 }
"""


def _streams(spans: Sequence[Span]) -> list[int]:
    return sorted({span["stream"] for span in spans})


def stream_name(spans: Sequence[Span], stream: int) -> str:
    """By what the stream does most."""
    busy: dict[str, float] = {}
    for span in spans:
        if span["stream"] == stream and not span["is_stall"]:
            busy[span["activity"]] = busy.get(span["activity"], 0.0) + span["end"] - span["begin"]
    most = max(busy, key=lambda activity: busy[activity], default="unknown")
    return _STREAM_NAMES.get(most, "compute")


def _words(span: Span) -> str:
    kind = str(span["activity"]).replace("_", " ")
    if span["is_stall"]:
        return f"stalled for {kind}"
    return f"{kind}: {span['name']}" if span["name"] else kind


def trace(spans: Sequence[Span], memory: Sequence[Sample] = ()) -> str:
    """Chrome's trace event format, which ui.perfetto.dev reads. Times are virtual microseconds."""
    events: list[dict[str, Any]] = [
        {
            "ph": "M",
            "pid": 0,
            "tid": stream,
            "name": "thread_name",
            "args": {"name": f"stream {stream}: {stream_name(spans, stream)}"},
        }
        for stream in _streams(spans)
    ]
    for span in spans:
        events.append(
            {
                "ph": "X",
                "pid": 0,
                "tid": span["stream"],
                "name": _words(span),
                "cat": "stall" if span["is_stall"] else span["activity"],
                "ts": span["begin"] * 1e6,
                "dur": (span["end"] - span["begin"]) * 1e6,
            }
        )
    for sample in memory:
        events.append(
            {
                "ph": "C",
                "pid": 0,
                "name": f"memory of device {sample['device']}, bytes",
                "ts": sample["time"] * 1e6,
                "args": {key: sample[key] for key, _ in _BYTES},
            }
        )
    return json.dumps({"traceEvents": events, "displayTimeUnit": "ms"})


class _Scale:
    """From virtual seconds to pixels."""

    def __init__(self, spans: Sequence[Span]) -> None:
        self.begin = min(span["begin"] for span in spans)
        self.end = max(span["end"] for span in spans)
        self._pixels = (_WIDTH - _LEFT - _RIGHT) / max(self.end - self.begin, 1e-12)

    def x(self, time: float) -> float:
        return _LEFT + (min(max(time, self.begin), self.end) - self.begin) * self._pixels


def picture(spans: Sequence[Span], memory: Sequence[Sample] = ()) -> str:
    """An SVG with a line for each stream, stalls of computing in red, and each device's bytes under it."""
    if not spans:
        return '<svg xmlns="http://www.w3.org/2000/svg" width="10" height="10"/>\n'
    scale = _Scale(spans)
    devices = sorted({sample["device"] for sample in memory})
    under = _TOP + _ROW * len(_streams(spans)) + 26
    height = under + 20 + (_MEMORY + _GAP) * len(devices) + 44
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" '
        f'role="img" aria-label="streams and memory of the last steps"><style>{_STYLE}</style>'
    ]
    parts += _rows(spans, scale)
    parts += _times(scale, under - 8)
    for number, device in enumerate(devices):
        samples = [sample for sample in memory if sample["device"] == device]
        parts += _bytes(samples, scale, under + 20 + number * (_MEMORY + _GAP), f"device {device}")
    parts += _legend(height - 30, bool(devices))
    return "\n".join([*parts, "</svg>\n"])


def _rows(spans: Sequence[Span], scale: _Scale) -> list[str]:
    streams = _streams(spans)
    names = {stream: stream_name(spans, stream) for stream in streams}
    parts = [
        f'<text x="4" y="{_TOP + row * _ROW + 18}">{names[stream]}</text>'
        for row, stream in enumerate(streams)
    ]
    for span in spans:
        x, end = scale.x(span["begin"]), scale.x(span["end"])
        if end - x < _THINNEST:
            continue
        colour = span["activity"]
        if span["is_stall"]:  # a copy that waits for computing costs nothing
            colour = "stall" if names[span["stream"]] == "compute" else "line"
        y = _TOP + streams.index(span["stream"]) * _ROW
        seconds = span["end"] - span["begin"]
        parts.append(
            f'<rect x="{x:.2f}" y="{y}" width="{end - x:.2f}" height="{_ROW - 8}" fill="var(--{colour})">'
            f"<title>{escape(_words(span))}, {1e3 * seconds:.3f} ms</title></rect>"
        )
    return parts


def _times(scale: _Scale, y: int) -> list[str]:
    seconds = scale.end - scale.begin
    parts = []
    for part in range(5):
        x = scale.x(scale.begin + seconds * part / 4)
        anchor = "start" if part == 0 else "middle"
        parts.append(f'<text x="{x:.1f}" y="{y}" text-anchor="{anchor}">{seconds * part / 4:.3g} s</text>')
    return parts


def _bytes(samples: Sequence[Sample], scale: _Scale, top: int, title: str) -> list[str]:
    most = max(max(sample[key] for key, _ in _BYTES) for sample in samples) or 1
    parts = [f'<text x="4" y="{top + 12}">{title}</text>']
    for part in range(3):
        y = top + _MEMORY * part / 2
        parts.append(f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y}" y2="{y}"/>')
        size = most * (1 - part / 2) / _GIB
        parts.append(f'<text x="{_WIDTH - _RIGHT + 4}" y="{y + 4}">{size:.3g} GiB</text>')
    for key, _ in _BYTES:
        points = [(scale.x(s["time"]), top + _MEMORY * (1 - s[key] / most)) for s in samples]
        if any(sample[key] for sample in samples):
            path = _steps(points, scale.x(scale.end))
            parts.append(f'<path class="curve" stroke="var(--{key})" d="{path}"/>')
    return parts


def _steps(points: Sequence[tuple[float, float]], end: float) -> str:
    """A staircase; of a pixel's column only its first, highest, lowest and last points."""
    columns: dict[int, list[tuple[float, float]]] = {}
    for x, y in points:
        columns.setdefault(int(2 * x), []).append((x, y))
    path = ""
    for column in columns.values():
        ends = {column[0], min(column, key=lambda p: p[1]), max(column, key=lambda p: p[1]), column[-1]}
        for x, y in sorted(ends, key=column.index):
            path += f"H{x:.1f}V{y:.1f}" if path else f"M{x:.1f} {y:.1f}"
    return path + f"H{end:.1f}"


def _legend(y: int, has_memory: bool) -> list[str]:
    names = [(name, name.replace("_", " ")) for name in _ACTIVITIES] + [("stall", "stalled")]
    rows = [names, list(_BYTES)] if has_memory else [names]
    parts = []
    for row, entries in enumerate(rows):
        for column, (colour, words) in enumerate(entries):
            x, line = _LEFT + column * 120, y + row * 20
            parts.append(f'<rect x="{x}" y="{line - 9}" width="10" height="10" fill="var(--{colour})"/>')
            parts.append(f'<text x="{x + 14}" y="{line}">{words}</text>')
    return parts


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Dry run: streams and memory</title>
<style>:root { color-scheme: light dark } body { margin: 0 } main { overflow-x: auto }
svg { display: block; width: 100%; min-width: 800px; height: auto }</style></head>
<body><main>
"""


def page(spans: Sequence[Span], memory: Sequence[Sample] = ()) -> str:
    """The picture as a page that fills the window, and scrolls sideways in a narrow one."""
    return _PAGE + picture(spans, memory) + "</main></body></html>\n"


def write(found: Mapping[str, Any], path: pathlib.Path) -> None:
    """`found`: what the simulated GPU wrote, spans and memory. A picture for a name ending in .svg or
    .html, else a trace. Raises OSError."""
    form = {".svg": picture, ".html": page}.get(path.suffix, trace)
    path.write_text(form(found["spans"], found["memory"]))
