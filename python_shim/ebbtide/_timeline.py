"""The streams' timeline of a dry run's last steps, as a Perfetto trace or as a picture."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

Span = Mapping[str, Any]
_COLOURS = {
    "matrix": "#2f6db3",
    "attention": "#7b4fb5",
    "other": "#7f8c99",
    "copy_out": "#2a9d6f",
    "copy_in": "#55b8d6",
    "unknown": "#bbbbbb",
    "collective": "#e08a1e",
}
_STALL = "#d62f2f"
_WIDTH, _LEFT, _ROW, _TOP = 1200, 90, 34, 30


def _streams(spans: Sequence[Span]) -> list[int]:
    return sorted({span["stream"] for span in spans})


def _words(span: Span) -> str:
    kind = str(span["activity"]).replace("_", " ")
    if span["is_stall"]:
        return f"stalled for {kind}"
    return f"{kind}: {span['name']}" if span["name"] else kind


def trace(spans: Sequence[Span]) -> str:
    """Chrome's trace event format, which ui.perfetto.dev reads. Times are virtual microseconds."""
    events: list[dict[str, Any]] = [
        {"ph": "M", "pid": 0, "tid": stream, "name": "thread_name", "args": {"name": f"stream {stream}"}}
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
    return json.dumps({"traceEvents": events, "displayTimeUnit": "ms"})


def picture(spans: Sequence[Span]) -> str:
    """An SVG with one line a stream; stalls are red. Spans thinner than a tenth of a pixel are left out."""
    if not spans:
        return '<svg xmlns="http://www.w3.org/2000/svg" width="10" height="10"/>\n'
    begin = min(span["begin"] for span in spans)
    scale = (_WIDTH - _LEFT - 10) / max(max(span["end"] for span in spans) - begin, 1e-12)
    streams = _streams(spans)
    height = _TOP + _ROW * len(streams) + 30
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" '
        'font-family="sans-serif" font-size="12">'
    ]
    for row, stream in enumerate(streams):
        parts.append(f'<text x="4" y="{_TOP + row * _ROW + 18}">stream {stream}</text>')
    for span in spans:
        width = (span["end"] - span["begin"]) * scale
        if width < 0.1:
            continue
        colour = _STALL if span["is_stall"] else _COLOURS[span["activity"]]
        x = _LEFT + (span["begin"] - begin) * scale
        y = _TOP + streams.index(span["stream"]) * _ROW
        seconds = span["end"] - span["begin"]
        parts.append(
            f'<rect x="{x:.2f}" y="{y}" width="{width:.2f}" height="{_ROW - 8}" fill="{colour}">'
            f"<title>{_words(span)}, {1e3 * seconds:.3f} ms</title></rect>"
        )
    parts += _legend(height - 10)
    return "\n".join([*parts, "</svg>\n"])


def _legend(y: int) -> list[str]:
    parts, x = [], _LEFT
    for name, colour in [*_COLOURS.items(), ("stalled", _STALL)]:
        parts.append(f'<rect x="{x}" y="{y - 9}" width="10" height="10" fill="{colour}"/>')
        parts.append(f'<text x="{x + 14}" y="{y}">{name.replace("_", " ")}</text>')
        x += 110
    return parts


def write(spans: Sequence[Span], path: pathlib.Path) -> None:
    """An SVG for a name ending in .svg, else a trace. Raises OSError."""
    path.write_text(picture(spans) if path.suffix == ".svg" else trace(spans))
