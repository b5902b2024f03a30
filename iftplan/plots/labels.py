"""Labels beside points, placed so that none covers another, a point or the edge; what finds no place is left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from math import hypot
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.text import Annotation

from iftplan.plots.style import Theme

_Place = tuple[int, int, Literal["left", "right", "center"], Literal["top", "bottom", "center"]]

_PLACES: tuple[_Place, ...] = (
    (6, 5, "left", "bottom"), (-6, 5, "right", "bottom"), (6, -5, "left", "top"), (-6, -5, "right", "top"),
    (0, 9, "center", "bottom"), (0, -9, "center", "top"), (9, 0, "left", "center"), (-9, 0, "right", "center"),
    (16, 14, "left", "bottom"), (-16, 14, "right", "bottom"), (16, -14, "left", "top"), (-16, -14, "right", "top"),
)  # fmt: skip
"""Offsets in points and alignments, the most natural first."""

_BESIDE: tuple[_Place, ...] = (
    (5, 0, "left", "center"), (5, 3, "left", "center"), (5, -3, "left", "center"), (-5, 0, "right", "center"),
    (-5, 3, "right", "center"), (-5, -3, "right", "center"),
)  # fmt: skip
"""Those of short labels in a column of points."""

_RADIUS = 3.5  # of a marker, in points


@dataclass(frozen=True, slots=True)
class Label:
    """A text that belongs to a point, in data coordinates, with its size in points."""

    text: str
    x: float
    y: float
    size: float = 7


@dataclass(frozen=True, slots=True)
class _Box:
    left: float
    bottom: float
    right: float
    top: float

    def overlaps(self, other: _Box) -> bool:
        return (
            self.left <= other.right
            and other.left <= self.right
            and self.bottom <= other.top
            and other.bottom <= self.top
        )

    def distance(self, other: _Box) -> float:
        """Between the nearest edges; 0 where they overlap."""
        dx = max(self.left - other.right, other.left - self.right, 0.0)
        dy = max(self.bottom - other.top, other.bottom - self.top, 0.0)
        return hypot(dx, dy)

    def within(self, other: _Box) -> bool:
        return (
            self.left >= other.left
            and self.right <= other.right
            and self.bottom >= other.bottom
            and self.top <= other.top
        )


def place_labels(
    figure: Figure,
    axes: Axes,
    labels: Sequence[Label],
    points: Sequence[tuple[float, float]],
    lines: Sequence[Sequence[tuple[float, float]]],
    colors: Theme,
    *,
    beside: bool = False,
) -> int:
    """Draw the labels that find a free place, first come first served; how many did.

    Args:
        figure: laid out already, but for these labels.
        axes: what they are drawn in.
        labels: the most important first.
        points: data coordinates of all markers.
        lines: data coordinates of lines that are kept clear where that is possible.
        colors: of the text, and of the halo that keeps lines out of it.
        beside: whether labels are short and stand right beside their points.
    """
    renderer = FigureCanvasAgg(figure).get_renderer()  # type: ignore[no-untyped-call]
    figure.draw_without_rendering()
    frame = axes.get_window_extent(renderer)
    room = _Box(frame.x0, frame.y0, frame.x1, frame.y1)
    radius = _RADIUS * figure.dpi / 72
    markers = [_Box(x - radius, y - radius, x + radius, y + radius) for x, y in _pixels(axes, points)]
    strokes = [_spanned(a, b) for line in lines for a, b in pairwise(_pixels(axes, line))]
    written = [text.get_window_extent(renderer) for text in axes.texts if text.get_text()]
    taken = [_Box(box.x0, box.y0, box.x1, box.y1) for box in written]
    for label in labels:
        for clear, place in product((True, False), _BESIDE if beside else _PLACES):
            text, box = _written(axes, label, place, colors, renderer)
            others = (*taken, *markers, *(strokes if clear else ()))
            if (
                box.within(room)
                and not any(map(box.overlaps, others))
                and _is_nearest(axes, label, box, markers)
            ):
                taken.append(box)
                break
            text.remove()
    return len(taken) - len(written)


def _written(
    axes: Axes, label: Label, place: _Place, colors: Theme, renderer: RendererAgg
) -> tuple[Annotation, _Box]:
    dx, dy, horizontal, vertical = place
    text = axes.annotate(
        label.text, (label.x, label.y), (dx, dy), textcoords="offset points", ha=horizontal, va=vertical,
        fontsize=label.size, color=colors.ink, zorder=6, annotation_clip=True,
        path_effects=[withStroke(linewidth=2, foreground=colors.background)],
    )  # fmt: skip
    text.set_in_layout(False)
    extent = text.get_window_extent(renderer)
    return text, _Box(extent.x0, extent.y0, extent.x1, extent.y1)


def _is_nearest(axes: Axes, label: Label, box: _Box, markers: Sequence[_Box]) -> bool:
    """Whether no other marker is nearer to the text than its own: readers take a text for the nearest point's."""
    [(x, y)] = _pixels(axes, [(label.x, label.y)])
    own = box.distance(_Box(x, y, x, y))
    centres = (_spanned(((m.left + m.right) / 2, (m.bottom + m.top) / 2)) for m in markers)
    return not any(box.distance(centre) < own - 0.5 for centre in centres)


def _pixels(axes: Axes, points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in axes.transData.transform(points)] if points else []


def _spanned(*corners: tuple[float, float]) -> _Box:
    xs, ys = zip(*corners, strict=True)
    return _Box(min(xs), min(ys), max(xs), max(ys))
