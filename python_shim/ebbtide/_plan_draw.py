"""A plan as a picture: time to the right, offsets upwards, one rectangle for each life of a buffer.

SVG is a picture of the whole; HTML is the same to explore: zoom, move, point at a buffer. Both are one
file without references, and follow the reader's light or dark mode.
"""

from __future__ import annotations

import dataclasses
import fractions
import html
import itertools
import json
import pathlib
import re
from collections.abc import Callable, Iterator

from ._plan_run import gap_text
from ._problem import Arena, Planned
from ._report import size_text

_MOST_IN_SVG = 20_000
_MOST_IN_HTML = 200_000
_TEMPLATE = "_plan_page.html"
_WIDTH, _HEIGHT = 1280, 800
_LEFT, _RIGHT, _TOP, _BOTTOM = 100, 20, 70, 50
_TO_NEXT_ROUND = [fractions.Fraction(2), fractions.Fraction(5, 2), fractions.Fraction(2)]
_GAP = re.compile(r"(-?\d+)-(-?\d+)(?:@(\d+):(\d+))?")
_KEY_WORDS = ("lower bound", "height", "capacity")  # of lines that a key beside the title explains
Scale = Callable[[int], float]  # from ticks or bytes to places on the paper
# What XML cannot hold, even escaped.
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclasses.dataclass(frozen=True)
class Life:
    """One rectangle: the bytes of a buffer that are in use during a stretch of its life."""

    id: str
    birth: int
    death: int
    offset: int
    size: int
    arena: str = ""
    base: int = 0  # arenas are drawn on top of each other: where its own begins

    @property
    def area(self) -> int:
        return (self.death - self.birth) * self.size


@dataclasses.dataclass(frozen=True)
class Picture:
    title: str
    summary: str
    lives: list[Life]  # the largest, in order of the file
    left_out: int
    begin: int
    end: int
    levels: list[tuple[str, int]]  # name and height of the horizontal lines
    top: int


def draw(
    plan_csv: bytes,
    planned: Planned,
    arenas: list[Arena],
    title: str,
    capacities: dict[str, int],
    path: str,
) -> str:
    """The drawing in the format that the path's ending names."""
    is_html = pathlib.Path(path).suffix.lower() == ".html"
    most = _MOST_IN_HTML if is_html else _MOST_IN_SVG
    return (to_html if is_html else to_svg)(
        _picture(plan_csv, planned, arenas, title, capacities, most)
    )


def _picture(
    plan_csv: bytes,
    planned: Planned,
    arenas: list[Arena],
    title: str,
    capacities: dict[str, int],
    most: int,
) -> Picture:
    bases, levels = _stack(planned, arenas, capacities)
    lives = [
        dataclasses.replace(life, base=bases[life.arena])
        for life in _lives(plan_csv)
        if life.size > 0
    ]
    buffers = plan_csv.count(b"\n") - 1
    kept = lives
    if len(lives) > most:
        kept = sorted(lives, key=lambda life: -life.area)[:most]
    height = planned.height or 0
    return Picture(
        title=pathlib.PurePath(title).name,
        summary=f"{buffers} buffers, height {size_text(height)}, "
        f"lower bound {size_text(planned.lower_bound)}, gap {gap_text(planned)}",
        lives=kept,
        left_out=len(lives) - len(kept),
        begin=min((life.birth for life in lives), default=0),
        end=max((life.death for life in lives), default=1),
        levels=levels,
        top=max(height, planned.lower_bound, 1),
    )


def _stack(
    planned: Planned, arenas: list[Arena], capacities: dict[str, int]
) -> tuple[dict[str, int], list[tuple[str, int]]]:
    """Where each arena begins, and the horizontal lines."""
    if len(arenas) == 1:
        levels = [("lower bound", planned.lower_bound), ("height", planned.height or 0)]
        levels += [("capacity", capacity) for capacity in capacities.values()]
        return {arenas[0].name: 0}, levels
    bases: dict[str, int] = {}
    levels = []
    top = 0
    for arena in arenas:
        bases[arena.name] = top
        top += arena.plan.height or 0
        levels.append((arena.name, top))
    return bases, levels


def _lives(plan_csv: bytes) -> Iterator[Life]:
    # As the library writes it: no quoting, and ids of any bytes but these two.
    for line in plan_csv.decode(errors="replace").split("\n")[1:-1]:
        name, lower, upper, size, _, offset, gaps, *arena = line.split(",")
        whole = Life(name, int(lower), int(upper), int(offset), int(size), *arena)
        for gap in gaps.split():
            from_, to, low, high = _GAP.fullmatch(gap).groups()  # type: ignore[union-attr]
            if whole.birth < int(from_):
                yield dataclasses.replace(whole, death=int(from_))
            if low is not None:
                yield dataclasses.replace(
                    whole,
                    birth=int(from_),
                    death=int(to),
                    offset=whole.offset + int(low),
                    size=int(high) - int(low),
                )
            whole = dataclasses.replace(whole, birth=int(to))
        if whole.birth < whole.death:
            yield whole


def hue_of(size: int) -> int:
    """Equal sizes look equal; neighbours in size do not."""
    return size * 2654435761 % 2**32 * 360 >> 32


def ticks_of(low: int, high: int, base: int, most: int = 8) -> list[int]:
    """Round numbers from low to high: 1, 2 or 5 times a power of 10, or powers of 2."""
    factors = itertools.cycle([fractions.Fraction(2)] if base == 2 else _TO_NEXT_ROUND)
    step = fractions.Fraction(1)
    while (high - low) // step >= most:
        step *= next(factors)
    whole = int(step)
    return list(range(-(-low // whole) * whole, high + 1, whole))


_STYLE = """
svg{color-scheme:light dark;font:13px system-ui,sans-serif;background:#fff;color:#1b1f24}
.paper{fill:#fff}.frame{fill:none;stroke:#8a929c}.grid{stroke:#8a929c;stroke-opacity:.25}
text{fill:#1b1f24}.small{font-size:12px;fill:#57606a}.id{fill:#111;font-size:11px}
.level{stroke-dasharray:6 4;stroke:#c0262d;stroke-width:1.4}.bound{stroke:#0a58ca}
.b{stroke:#0008;stroke-width:.6}.b.tiny{stroke:none}.b:hover{stroke:#000;stroke-width:2}
@media(prefers-color-scheme:dark){svg{background:#15181c;color:#e6e8eb}.paper{fill:#15181c}
text{fill:#e6e8eb}.small{fill:#a4acb6}.id{fill:#111}.level{stroke:#ff7b72}.bound{stroke:#79b8ff}
.b:hover{stroke:#fff}}
"""


def to_svg(picture: Picture) -> str:
    scale_x = (_WIDTH - _LEFT - _RIGHT) / max(picture.end - picture.begin, 1)
    scale_y = (_HEIGHT - _TOP - _BOTTOM) / picture.top
    floor = _HEIGHT - _BOTTOM

    def x(tick: int) -> float:
        return _LEFT + (tick - picture.begin) * scale_x

    def y(offset: int) -> float:
        return floor - offset * scale_y

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'width="{_WIDTH}" height="{_HEIGHT}"><style>{_STYLE}</style>'
        f'<rect class="paper" width="{_WIDTH}" height="{_HEIGHT}"/>',
        f'<text x="{_LEFT}" y="26" font-size="17">{_xml(picture.title)}</text>',
        f'<text x="{_LEFT}" y="46" class="small">{_xml(_subtitle(picture))}</text>',
    ]
    parts += _svg_axes(picture, x, y)
    parts += [_svg_life(i, life, x, y) for i, life in enumerate(picture.lives)]
    parts += _svg_levels(picture, y)
    return "\n".join([*parts, "</svg>\n"])


def _svg_life(index: int, life: Life, x: Scale, y: Scale) -> str:
    left, top = x(life.birth), y(life.base + life.offset + life.size)
    width, height = x(life.death) - left, y(life.base + life.offset) - top
    tiny = " tiny" if width < 3 or height < 3 else ""
    text = ""
    if height >= 12 and width >= 8 + 6.5 * len(life.id):
        text = (
            f'<text class="id" x="{left + width / 2:.1f}" y="{top + height / 2 + 4:.1f}" '
            f'text-anchor="middle" pointer-events="none">{_xml(life.id)}</text>'
        )
    return (
        f'<rect class="b{tiny}" x="{left:.2f}" y="{top:.2f}" width="{max(width, 0.3):.2f}" '
        f'height="{max(height, 0.3):.2f}" fill="hsl({hue_of(life.size)} 60% {68 + 8 * (index % 2)}%)">'
        f"<title>{_xml(_tooltip(life))}</title></rect>{text}"
    )


def _svg_axes(picture: Picture, x: Scale, y: Scale) -> list[str]:
    floor, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    parts = []
    for tick in ticks_of(picture.begin, picture.end, 10):
        parts.append(
            f'<line class="grid" x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="{_TOP}" y2="{floor}"/>'
            f'<text class="small" x="{x(tick):.1f}" y="{floor + 17}" text-anchor="middle">{tick}</text>'
        )
    for offset in ticks_of(0, picture.top, 2):
        parts.append(
            f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{y(offset):.1f}" y2="{y(offset):.1f}"/>'
            f'<text class="small" x="{_LEFT - 8}" y="{y(offset) + 4:.1f}" text-anchor="end">'
            f"{_short(offset)}</text>"
        )
    parts.append(
        f'<rect class="frame" x="{_LEFT}" y="{_TOP}" width="{right - _LEFT}" height="{floor - _TOP}"/>'
        f'<text class="small" x="{(_LEFT + right) / 2}" y="{_HEIGHT - 12}" text-anchor="middle">'
        "time (ticks)</text>"
        f'<text class="small" transform="translate(16 {(_TOP + floor) / 2}) rotate(-90)" '
        'text-anchor="middle">offset</text>'
    )
    return parts


def _svg_levels(picture: Picture, y: Scale) -> list[str]:
    right = _WIDTH - _RIGHT
    parts = []
    for i, (name, level) in enumerate(picture.levels):
        if level > picture.top:
            continue
        kind = "level bound" if name == "lower bound" else "level"
        line = f'<line class="{kind}" x1="{_LEFT}" x2="{right}" y1="{y(level):.1f}" y2="{y(level):.1f}"/>'
        if name not in _KEY_WORDS:
            parts.append(
                f'{line}<text class="small" x="{_LEFT + 6}" y="{y(level) + 14:.1f}">{_xml(name)}</text>'
            )
            continue
        parts.append(
            f'{line}'
            f'<line class="{kind}" x1="{right - 330 + 120 * i}" x2="{right - 305 + 120 * i}" y1="62" '
            f'y2="62"/><text class="small" x="{right - 300 + 120 * i}" y="66">{name}</text>'
        )
    return parts


def to_html(picture: Picture) -> str:
    data = {
        "ids": [life.id for life in picture.lives],
        "births": [life.birth for life in picture.lives],
        "deaths": [life.death for life in picture.lives],
        "offsets": [life.offset for life in picture.lives],
        "sizes": [life.size for life in picture.lives],
        "bases": [life.base for life in picture.lives],
        "hues": [hue_of(life.size) for life in picture.lives],
        "begin": picture.begin,
        "end": picture.end,
        "top": picture.top,
        "levels": picture.levels,
    }
    page = pathlib.Path(__file__).with_name(_TEMPLATE).read_text(encoding="utf-8")
    filled = {
        "TITLE": html.escape(picture.title),
        "SUBTITLE": html.escape(_subtitle(picture)),
        # Inside <script>, only a "</script>" or "<!--" could end it early.
        "DATA": json.dumps(data, separators=(",", ":")).replace("<", "\\u003c"),
    }
    return re.sub("{{(TITLE|SUBTITLE|DATA)}}", lambda found: filled[found[1]], page)


def _subtitle(picture: Picture) -> str:
    if not picture.left_out:
        return picture.summary
    return f"{picture.summary}; the {picture.left_out} smallest rectangles are not drawn"


def _tooltip(life: Life) -> str:
    return (
        f"{life.id}\nsize {life.size} ({size_text(life.size)})\n"
        f"life [{life.birth}, {life.death})\noffset {life.offset}"
        + (f" in {life.arena}" if life.arena else "")
    )


def _short(size: int) -> str:
    """A size on an axis: "1.5 GiB" rather than "1.50 GiB"."""
    number, unit = size_text(size).split()
    return f"{float(number):g} {unit}"


def _xml(text: str) -> str:
    return html.escape(_NO_XML.sub("?", text))
