"""The README's picture: a network before and after at equal cost, and the accuracy that was gained."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from html import escape

import iftplan as ift
from iftplan.base.units import count
from iftplan.runs.results.published.results import published_results
from tests.support.places import page_named

LAYERS, UNITS, WIDER = 3, 4, 2
"""Of the network that is drawn: layers of units, units of each, and how many times wider it becomes."""

_WIDTH, _HEIGHT = 760, 348
_HEAD = f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}" role="img" font-family="system-ui, 'DejaVu Sans', Arial, sans-serif">
<title>The same cost, spent on a wider, sparser network</title>
<rect width="{_WIDTH}" height="{_HEIGHT}" rx="10" fill="#f7f9fc"/>
"""
_TEXT = '<text x="{x:g}" y="{y:g}" font-size="{size}" fill="{fill}" text-anchor="{anchor}" font-weight="{weight}">{text}</text>\n'
_EDGE = '<path d="M{x0:g} {y0:g}L{x1:g} {y1:g}" stroke="{stroke}" stroke-width="{width}"/>\n'
_NODE = '<circle cx="{x:g}" cy="{y:g}" r="{r:g}" fill="#fff" stroke="#14304f" stroke-width="1.5"/>\n'
_BAR = '<rect x="{x:g}" y="{y:g}" width="{width:.1f}" height="22" fill="{fill}"/>\n'
_INK, _SOFT, _BLUE, _PALE, _GREEN = "#14304f", "#4a5b70", "#1d5fa8", "#c3d2e4", "#0f7b6c"


@dataclass(frozen=True, slots=True)
class Gain:
    """What Sparse-IFT gained over the dense model of the same forward cost.

    Attributes:
        where: network, data set and source.
        how: family, sparsity and method.
        dense: accuracy of the dense model, in percent.
        sparse: accuracy of the sparse one, in percent.
        points: the difference, in percentage points.
        error: its standard error over seeds; None where the source has none.
    """

    where: str
    how: str
    dense: Decimal
    sparse: Decimal
    points: Decimal
    error: Decimal | None = None


def published_gain() -> Gain:
    """ResNet-18 on ImageNet, wide at 90 % with RigL, from Table 6 of arXiv 2303.11525."""
    rows = [r for r in published_results() if (r.task, r.model) == ("ImageNet", "ResNet-18")]
    (dense,) = (r for r in rows if r.transform == "dense")
    (sparse,) = (r for r in rows if (r.transform, r.method, str(r.sparsity)) == ("wide", "rigl", "9/10"))
    before, after = (Decimal(str(r.value)) for r in (dense, sparse))
    return Gain(
        "ResNet-18 on ImageNet, in the paper", "wide, 90 % sparse, RigL", before, after, after - before
    )


def own_gain() -> Gain:
    """ResNet-8 on CIFAR-10 after ten epochs, wide at 75 % with SET, from the table of our results."""
    table = (
        page_named("results.md").read_text(encoding="utf-8").split("## Ten epochs")[1].split("Test loss")[0]
    )
    rows = {cells[1]: cells for line in table.splitlines() if (cells := re.split(r" *\| *", line))[1:]}
    dense, sparse = rows["dense"], rows["wide, set"]
    before, after = (Decimal(row[3].split(" ± ")[0]) for row in (dense, sparse))
    points, error = sparse[4].split(" ± ")
    assert dense[5] == sparse[5], "the same forward MACs"
    return Gain(
        f"ResNet-8 on CIFAR-10, our runs, {sparse[2]} seeds",
        "wide, 75 % sparse, SET",
        before,
        after,
        Decimal(points),
        Decimal(error),
    )


def edges(units: int, per_unit: int) -> set[tuple[int, int, int]]:
    """Connections of a network: layer, unit, unit of the next layer; each unit reads and feeds `per_unit` others."""
    return {
        (layer, unit, (5 * unit + 3 * layer + 3 * step) % units)
        for layer in range(LAYERS - 1)
        for unit in range(units)
        for step in range(per_unit)
    }


def gain_picture() -> str:
    """The README's picture as SVG, from the plan of a network, the published results and our own."""
    dense, sparse = edges(UNITS, UNITS), edges(UNITS * WIDER, UNITS // WIDER)
    possible = edges(UNITS * WIDER, UNITS * WIDER)
    assert len(dense) == len(sparse)
    return "".join(
        (
            _HEAD,
            *_network(28, UNITS, dense, set()),
            *_legend(28, "Dense network", f"{len(dense)} weights", f"{len(dense)} multiplications"),
            _text(208, 128, "same", 12, _SOFT, "middle"),
            _text(208, 144, "cost", 12, _SOFT, "middle"),
            '<path d="M190 156H222" stroke="#1d5fa8" stroke-width="2"/><path d="M220 150L231 156L220 162z" fill="#1d5fa8"/>\n',
            *_network(248, UNITS * WIDER, sparse, possible),
            *_legend(
                248,
                "Sparse Wide",
                f"{len(sparse)} of {len(possible)} weights",
                f"{len(sparse)} multiplications",
            ),
            *_gains(432, (published_gain(), own_gain())),
            *_example(),
            "</svg>\n",
        )
    )


def _network(
    left: int, units: int, kept: set[tuple[int, int, int]], possible: set[tuple[int, int, int]]
) -> Iterator[str]:
    def place(layer: int, unit: int) -> tuple[float, float]:
        return left + 8 + 66 * layer, 50 + (unit + 0.5) * 200 / units

    for chosen, stroke, width in (
        (possible - kept, _PALE, 0.8),
        (kept, _BLUE, 1.6),
    ):
        for layer, a, b in sorted(chosen):
            (x0, y0), (x1, y1) = place(layer, a), place(layer + 1, b)
            yield _EDGE.format(x0=x0, y0=y0, x1=x1, y1=y1, stroke=stroke, width=width)
    for layer in range(LAYERS):
        for unit in range(units):
            x, y = place(layer, unit)
            yield _NODE.format(x=x, y=y, r=6.5)


def _legend(left: int, title: str, weights: str, cost: str) -> Iterator[str]:
    yield _text(left, 34, title, 15, _INK, weight=600)
    yield _text(left, 272, weights, 13, _INK)
    yield _text(left, 290, cost, 13, _INK)


def _gains(left: int, gains: Sequence[Gain]) -> Iterator[str]:
    yield _text(left, 34, "Accuracy gained at equal cost", 15, _INK, weight=600)
    unit = 190 / float(max(gain.points for gain in gains))
    for number, gain in enumerate(gains):
        y = 66 + 108 * number
        yield _text(left, y, gain.where, 13, _INK)
        yield _text(left, y + 17, gain.how, 12, _SOFT)
        end = left + float(gain.points) * unit
        yield _BAR.format(x=left, y=y + 26, width=end - left, fill=_BLUE if gain.error is None else _GREEN)
        told = f"+{gain.points} points"
        if gain.error is not None:
            reach, told = float(gain.error) * unit, f"+{gain.points} ± {gain.error}"
            yield f'<path d="M{end - reach:.1f} {y + 37}H{end + reach:.1f}" stroke="{_INK}" stroke-width="2"/>\n'
            end += reach
        yield _text(end + 8, y + 42, told, 15, _INK, weight=600)
        yield _text(left, y + 66, f"{gain.dense} % → {gain.sparse} %", 13, _INK)


def _example() -> Iterator[str]:
    """One line on a real network: what it costs and how many weights masks choose from, before and after."""
    plan = ift.plan(ift.read_model("zoo:resnet18-cifar"), "wide", "3/4")
    before = sum(row.dense_macs for row in plan.layers)
    assert before == sum(row.macs for row in plan.layers)
    yield '<path d="M28 308H732" stroke="#c6d3e3"/>\n'
    small = sum(row.before.weights for row in plan.layers if row.maskable and row.before)
    yield _text(
        28,
        331,
        f"ResNet-18, wide at 75 %: {count(before)} MACs before and after; "
        f"masks choose from {plan.cardinality.maskable_weights / 1e6:.1f} M weights instead of {small / 1e6:.1f} M.",
        12,
        _INK,
    )


def _text(
    x: float, y: float, text: str, size: int, fill: str, anchor: str = "start", weight: int = 400
) -> str:
    return _TEXT.format(x=x, y=y, size=size, fill=fill, anchor=anchor, weight=weight, text=escape(text))
