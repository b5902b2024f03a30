"""The picture of the rooms: one above the other in the order of imports, each with its purpose, arrows to what it imports."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from textwrap import wrap

_ROW, _BOX, _LEFT, _WIDTH, _LANE = 54, 42, 86, 640, 18
_HEAD = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" font-family="system-ui, 'DejaVu Sans', Arial, sans-serif">
<title>The rooms of iftplan, lowest at the bottom</title>
<defs><marker id="end" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto"><path d="M0 0L8 4L0 8z" fill="#1d5fa8"/></marker></defs>
<rect width="{width}" height="{height}" rx="8" fill="#f7f9fc"/>
"""
_BOX_OF = """<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="5" fill="#fff" stroke="#9db4d0"/>
<text x="{name}" y="{middle}" font-size="15" font-weight="600" fill="#14304f">{room}</text>
"""
_LINE = '<text x="{x}" y="{y}" font-size="12" fill="#333">{text}</text>\n'
_ARROW = '<path d="M{x} {start}H{lane}V{end}H{x}" fill="none" stroke="#1d5fa8" stroke-width="1.3" stroke-linejoin="round" marker-end="url(#end)"/>\n'


def needed(arrows: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """The arrows that do not follow from others, sorted; there is no circle among them."""
    given = sorted(set(arrows))
    below: dict[str, set[str]] = {}
    for start, end in given:
        below.setdefault(start, set()).add(end)

    def reached(start: str) -> set[str]:
        return {room for end in below.get(start, ()) for room in (end, *reached(end))}

    return [(a, b) for a, b in given if not any(b in reached(other) for other in below[a] - {b})]


def lanes(rows: Mapping[str, int], arrows: Iterable[tuple[str, str]]) -> dict[tuple[str, str], int]:
    """The lane of every arrow, the shortest nearest to the rooms, so that no two lie on each other."""
    taken: dict[tuple[str, str], int] = {}
    for start, end in sorted(
        arrows, key=lambda arrow: (abs(rows[arrow[0]] - rows[arrow[1]]), rows[arrow[0]])
    ):
        low, high = sorted((rows[start], rows[end]))
        crossed = {
            lane
            for (a, b), lane in taken.items()
            if min(rows[a], rows[b]) < high and low < max(rows[a], rows[b])
        }
        taken[start, end] = next(lane for lane in range(len(rows) ** 2) if lane not in crossed)
    return taken


def picture(order: Sequence[str], purposes: Mapping[str, str], arrows: Iterable[tuple[str, str]]) -> str:
    """The rooms as SVG, the lowest at the bottom.

    Args:
        order: the rooms, lowest first.
        purposes: a sentence for each room.
        arrows: which room imports which; those that follow from others are left out.
    """
    rows = {room: row for row, room in enumerate(reversed(order))}
    parts = [_HEAD.format(width=_WIDTH, height=_ROW * len(rows) + 12)]
    for room, row in rows.items():
        top = 12 + row * _ROW
        middle = top + _BOX // 2
        width = _WIDTH - _LEFT - 12
        parts.append(
            _BOX_OF.format(
                x=_LEFT,
                y=top,
                width=width,
                height=_BOX,
                name=_LEFT + 12,
                middle=middle + 5,
                room=escape(room),
            )
        )
        lines = wrap(purposes[room].replace("`", ""), 66)
        for number, line in enumerate(lines):
            y = middle + 4 + 16 * number - 8 * (len(lines) - 1)
            parts.append(_LINE.format(x=_LEFT + 92, y=y, text=escape(line)))
    for (start, end), lane in sorted(lanes(rows, needed(arrows)).items(), key=lambda item: item[1]):
        ends = {"start": 12 + rows[start] * _ROW + 28, "end": 12 + rows[end] * _ROW + 14}
        parts.append(_ARROW.format(x=_LEFT - 2, lane=_LEFT - 20 - _LANE * lane, **ends))
    return "".join(parts) + "</svg>\n"
