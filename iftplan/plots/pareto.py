"""The trade-off as a scatter: frontier, errors over seeds, lines of equal cost, and readings at equal quality.

Every point stands at its cost. Where many cost the same, a panel beside the scatter has a column for each of their
series.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from math import log

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from iftplan.plots.crowds import Crowd, crowds, place_in_column
from iftplan.plots.files import Picture
from iftplan.plots.labels import Label, place_labels
from iftplan.plots.style import (
    MARKERS,
    Theme,
    common_power,
    count_axis,
    drawing,
    label_text,
    new_row,
    si,
    theme_named,
)
from iftplan.runs.results.axes import Gain
from iftplan.runs.results.configurations import ConfigurationResult
from iftplan.runs.results.pareto import Estimate, Sense
from iftplan.runs.results.reading import Subject, read_observations
from iftplan.runs.results.tradeoff import TradeOff, tradeoff

_MOST_LABELS, _MOST_LINES, _MOST_READINGS = 14, 6, 3
_LEGEND_ROWS = 24
_DENSE = ("dense", "paper: dense")
WIDE_X, WIDE_Y = 3, 50  # ratios from which on an axis is logarithmic
ALIKE = 0.03  # of a cost: the least that an axis spans, or its ticks would all read the same
MANY = 60  # points from which on each is drawn small


def pareto_picture(
    subject: TradeOff | Subject | Iterable[Subject], *, title: str = "", theme: str = "light"
) -> Picture:
    """Scatter plot of a trade-off, with its frontier and readings of equal quality.

    Args:
        subject: a trade-off, or what it is made of: plans, run directories, tables of a sweep or data frames. Without
            a metric, the size of the search space is drawn against the MACs of a forward pass.
        title: above it.
        theme: "light", "dark" or "print".

    Raises:
        InputError: something cannot be read or compared; says where.
    """
    found = subject if isinstance(subject, TradeOff) else _compared(subject)
    colors, beside = theme_named(theme), crowds(found)
    styles = _styles(found.entries, colors)
    with drawing(colors):
        widths = [5.0, *(1.0 + 0.36 * len(crowd.columns) for crowd in beside)]
        row = new_row(colors, len(widths), max(7.2, 1.8 + sum(widths)), 4.5 if not beside else 5.0, widths)
        figure, (axes, *panels) = row
        _axes(axes, found)
        _points(axes, found, styles, colors)
        _frontier(axes, found, colors)
        columns = list(zip(panels, beside, strict=True))
        for panel, crowd in columns:
            _columns(panel, crowd, found, styles, colors)
        _legend(axes, found, styles, beside, colors)
        if title:
            axes.set_title(label_text(title, 90), loc="left", fontsize=10)
        _iso_flop(axes, found, colors)
        marks = [(entry.x.mean, entry.y.mean) for entry in found.entries]
        written = [*_readings(axes, found, colors), *_labels(found, beside)]
        place_labels(figure, axes, written, marks, _strokes(found), colors)
        for panel, crowd in columns:
            labels, places = _column_labels(crowd)
            place_labels(figure, panel, labels, places, [], colors, beside=True)
    return Picture(figure, title or f"{found.y.name} against {found.x.name}", describe(found))


def _compared(subject: Subject | Iterable[Subject]) -> TradeOff:
    observations = read_observations(subject)
    measured = any(o.value is not None for o in observations)
    return tradeoff(observations, gain=Gain.METRIC if measured else Gain.LOG2_MASKS)


def describe(found: TradeOff) -> str:
    """Description of the figure in words."""
    first, last = found.entries[found.frontier[0]], found.entries[found.frontier[-1]]
    ends = " to ".join(f"{e.name} ({si(e.x.mean)}, {e.y.mean:.4g})" for e in dict.fromkeys((first, last)))
    return (
        f"{found.y.title} against {found.x.title}: {len(found.entries)} configurations, "
        f"{len(found.frontier)} of them on the frontier, from {ends}."
    )


def _axes(axes: Axes, found: TradeOff) -> None:
    xs, ys = _extent(e.x for e in found.entries), _extent(e.y for e in found.entries)
    if spans(xs, WIDE_X):
        axes.set_xscale("log")
    if spans(ys, WIDE_Y):
        axes.set_yscale("log")
    _limits(axes, xs, ys)
    for which, scale in (("x", axes.get_xscale()), ("y", axes.get_yscale())):
        if scale == "log":
            _log_ticks(axes, which)
    count_axis(axes, "x", found.x.title)
    count_axis(axes, "y", found.y.title)


def _log_ticks(axes: Axes, which: str) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter, NullLocator

    axis = axes.xaxis if which == "x" else axes.yaxis
    low, high = axis.get_view_interval()
    ratio = high / low
    subs = (1.0, 2.0, 3.0, 4.0, 5.0, 7.0) if ratio < 10 else (1.0, 2.0, 5.0) if ratio < 200 else (1.0,)
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())


def _extent(estimates: Iterable[Estimate]) -> list[float]:
    """All numbers with the ends of their error bars, where these are above zero too."""
    found = []
    for e in estimates:
        ends = [e.mean - (e.error or 0.0), e.mean + (e.error or 0.0)]
        found += [e.mean] if e.mean > 0 >= ends[0] else ends
    return found


def _limits(axes: Axes, xs: Sequence[float], ys: Sequence[float]) -> None:
    """Room around what is drawn, also where there is one point, or where costs are all but equal."""
    for values, scale, give, least in (
        (xs, axes.get_xscale(), axes.set_xlim, ALIKE),
        (ys, axes.get_yscale(), axes.set_ylim, 0.0),
    ):
        low, high = min(values), max(values)
        if scale == "log":
            factor = (high / low) ** 0.1
            give(low / factor, high * factor)
        else:
            spread = (high - low) or abs(high) * 0.1 or 1.0
            lacking = max(0.0, abs(high) * least - spread) / 2
            give(low - lacking - 0.12 * spread, high + lacking + 0.16 * spread)


Styles = Mapping[str, tuple[str, str]]


def _styles(entries: Sequence[ConfigurationResult], colors: Theme) -> Styles:
    """Series → colour and marker; dense is always ink."""
    names = list(dict.fromkeys(entry.series for entry in entries))
    others = [name for name in names if name not in _DENSE]
    found = {name: (colors.ink, "*" if name == "dense" else "P") for name in names if name not in others}
    markers = [m for m in MARKERS if m not in "*P"]
    for i, name in enumerate(others):
        found[name] = (colors.palette[i % len(colors.palette)], markers[i % len(markers)])
    return found


def _points(axes: Axes, found: TradeOff, styles: Styles, colors: Theme) -> None:
    front = set(found.frontier)
    many = len(found.entries) > MANY
    for name in styles:
        for on_frontier in (False, True):
            chosen = [
                e for i, e in enumerate(found.entries) if e.series == name and (i in front) is on_frontier
            ]
            if chosen:
                _marks(axes, chosen, [e.x.mean for e in chosen], styles, colors, on_frontier, many)
                _errors(axes, chosen, [e.x.mean for e in chosen], styles[name][0], many)


def _marks(
    axes: Axes, chosen: Sequence[ConfigurationResult], xs: Sequence[float], styles: Styles, colors: Theme,
    on_frontier: bool, many: bool,
) -> None:  # fmt: skip
    """Markers of configurations of one series."""
    name = chosen[0].series
    color, marker = styles[name]
    hollow = _hollow(name)
    axes.scatter(
        xs, [e.y.mean for e in chosen],
        s=(14 if many else 30) * (2.4 if marker == "*" else 1) * (1.3 if on_frontier else 1),
        marker=marker, facecolors="none" if hollow else color, edgecolors=color if hollow else colors.background,
        linewidths=1.1 if hollow else 0.5, alpha=0.55 if many and not on_frontier else 1.0,
        zorder=4 if on_frontier else 3, label=label_text(name),
    )  # fmt: skip


def _hollow(series: str) -> bool:
    """Whether a series is published, beside our own."""
    return series.startswith("paper:")


def _columns(panel: Axes, crowd: Crowd, found: TradeOff, styles: Styles, colors: Theme) -> None:
    """A column for each series of configurations that cost the same; no axis of cost."""
    front = {id(found.entries[i]) for i in found.frontier}
    for place, (name, entries) in enumerate(crowd.columns):
        for on_frontier in (False, True):
            chosen = [e for e in entries if (id(e) in front) is on_frontier]
            if chosen:
                _marks(panel, chosen, [place] * len(chosen), styles, colors, on_frontier, many=False)
        _errors(panel, entries, [place] * len(entries), styles[name][0], many=False, costs=False)
    names = [label_text(name) for name, _ in crowd.columns]
    panel.set_xticks(range(len(names)), names, rotation=40, ha="right", rotation_mode="anchor", fontsize=7.5)
    panel.set_xlim(-0.6, len(names) - 0.1)
    panel.grid(visible=False, axis="x")
    panel.set_title(crowd.title, loc="left", fontsize=8.5)


def _column_labels(crowd: Crowd) -> tuple[list[Label], list[tuple[float, float]]]:
    """Sparsities beside the points, and where the points are."""
    placed = [(float(i), entry) for i, (_, entries) in enumerate(crowd.columns) for entry in entries]
    labels = [Label(text, x, e.y.mean, 6.5) for x, e in placed if (text := place_in_column(e))]
    return labels, [(x, e.y.mean) for x, e in placed]


def _errors(
    axes: Axes, chosen: Sequence[ConfigurationResult], xs: Sequence[float], color: str, many: bool,
    costs: bool = True,
) -> None:  # fmt: skip
    measured = [(x, e) for x, e in zip(xs, chosen, strict=True) if e.y.error is not None or e.x.error]
    if measured:
        axes.errorbar(
            [x for x, _ in measured], [e.y.mean for _, e in measured],
            yerr=[e.y.error or 0.0 for _, e in measured],
            xerr=[e.x.error or 0.0 for _, e in measured] if costs else None,
            fmt="none", ecolor=color, elinewidth=0.5 if many else 0.9, capsize=0 if many else 2, zorder=2,
        )  # fmt: skip


def _frontier(axes: Axes, found: TradeOff, colors: Theme) -> None:
    """A staircase: nothing is known between two configurations but that the cheaper one is there."""
    if len(found.frontier) > 1:
        xs, ys = zip(*_staircase(found), strict=True)
        axes.plot(xs, ys, color=colors.muted, linewidth=1.1, zorder=2.5, label="frontier")


def _strokes(found: TradeOff) -> list[list[tuple[float, float]]]:
    """Lines that labels keep clear of where they can."""
    arrows = [[(x, e.y.mean), (e.x.mean, e.y.mean)] for e, x, _ in _arrows(found)]
    bars = [
        [(e.x.mean, e.y.mean - e.y.error), (e.x.mean, e.y.mean + e.y.error)]
        for e in found.entries
        if e.y.error
    ]
    return [_staircase(found), *arrows, *bars]


def _staircase(found: TradeOff) -> list[tuple[float, float]]:
    line = [found.entries[i].point for i in found.frontier]
    corners = [(line[0].x, line[0].y)]
    for before, after in pairwise(line):
        corners += [(after.x, before.y), (after.x, after.y)]
    return corners


def _iso_flop(axes: Axes, found: TradeOff, colors: Theme) -> None:
    """A line for each group of equal cost; it says which where the good points are not."""
    end, inwards, side = (1, -3, "top") if found.y.sense is Sense.LOWER else (0, 3, "bottom")
    power = common_power(*axes.get_xlim())
    for x in guides(found):
        axes.axvline(x, color=colors.muted, linewidth=0.7, linestyle=(0, (1, 3)), zorder=1)
        axes.annotate(
            f"≈ {si(x, power)}", (x, end), (2, inwards), xycoords=("data", "axes fraction"), textcoords="offset points",
            fontsize=6.5, color=colors.muted, rotation=90, va=side, ha="left",
        )  # fmt: skip


def guides(found: TradeOff) -> list[float]:
    """Costs at which lines mark groups of equal cost, those of dense models first.

    Among many points some are always alike, so that only those around dense models say anything.

    No line is so near another that they run together.
    """

    def of_dense(group: tuple[int, ...]) -> bool:
        return any(found.entries[i].what.dense for i in group)

    xs = [entry.x.mean for entry in found.entries]
    many = len(xs) > MANY
    groups = [group for group in found.groups if of_dense(group) or not many]
    places: list[float] = []
    for group in sorted(groups, key=lambda group: (not of_dense(group), -len(group))):
        x = sum(xs[i] for i in group) / len(group)
        if all(_apart(x, other, xs) for other in places):
            places.append(x)
    return places[:_MOST_LINES]


def _apart(a: float, b: float, xs: Sequence[float]) -> bool:
    """Whether two costs are 3 % of the axis from each other."""
    if spans(xs, WIDE_X):
        a, b, low, high = log(a), log(b), log(min(xs)), log(max(xs))
    else:
        low, high = min(xs), max(xs)
    return abs(a - b) > 0.03 * (high - low)


def spans(values: Sequence[float], factor: float) -> bool:
    """Whether numbers lie so far apart that their axis is logarithmic."""
    return min(values) > 0 and max(values) > factor * min(values)


def _arrows(found: TradeOff) -> list[tuple[ConfigurationResult, float, float]]:
    """Dense models whose quality costs visibly less elsewhere, with that cost and the ratio."""
    read = [
        (found.entries[i], r.x, r.ratio) for i, r in found.readings if r.x is not None and r.ratio is not None
    ]
    return [arrow for arrow in read if arrow[2] > 1.05][:_MOST_READINGS]


def _readings(axes: Axes, found: TradeOff, colors: Theme) -> list[Label]:
    """An arrow from each dense model to the frontier at its height; gives back what to write on it."""
    labels = []
    for entry, x, ratio in _arrows(found):
        y = entry.y.mean
        axes.annotate(
            "", (x, y), (entry.x.mean, y), zorder=2,
            arrowprops={"arrowstyle": "->", "color": colors.ink, "linewidth": 0.9, "linestyle": "--"},
        )  # fmt: skip
        log = axes.get_xscale() == "log"
        middle = (x * entry.x.mean) ** 0.5 if log else (x + entry.x.mean) / 2
        labels.append(Label(f"same {found.y.name}, {ratio:.2g}× cheaper", middle, y))
    return labels


def _labels(found: TradeOff, beside: Sequence[Crowd]) -> list[Label]:
    """Names for the dense models, the frontier, and, where they are few, the others; no more than fit."""
    told = {id(e) for crowd in beside for _, entries in crowd.columns for e in entries if not e.what.dense}
    dense = [i for i, e in enumerate(found.entries) if e.what.dense][:_MOST_READINGS]
    order = [*dense, *(found.frontier[i] for i in _spread(len(found.frontier)))]
    order += range(len(found.entries)) if len(found.entries) <= _MOST_LABELS or beside else []
    named = [i for i in dict.fromkeys(order) if id(found.entries[i]) not in told][:_MOST_LABELS]
    return [Label(label_text(e.name), e.x.mean, e.y.mean) for e in (found.entries[i] for i in named)]


def _spread(count: int) -> list[int]:
    """The ends first, then what halves the gaps: labels that are dropped leave even gaps."""
    found = [0, count - 1] if count > 1 else [0] * count
    step = count - 1
    while step > 1 and len(found) < 4 * _MOST_LABELS:
        step = (step + 1) // 2
        found += range(step, count - 1, step)
    return list(dict.fromkeys(found))


def _legend(axes: Axes, found: TradeOff, styles: Styles, beside: Sequence[Crowd], colors: Theme) -> None:
    """Series, but for those whose column has their name, and what lines mean."""
    columns = {name for crowd in beside for name, _ in crowd.columns}
    handles = [
        Line2D([], [], linestyle="none", marker=marker, color=color, markersize=6 if marker != "*" else 8,
               fillstyle="none" if _hollow(name) else "full", markeredgewidth=1.0, label=label_text(name))
        for name, (color, marker) in styles.items()
        if name not in columns
    ]  # fmt: skip
    if len(found.frontier) > 1:
        handles.append(Line2D([], [], color=colors.muted, linewidth=1.1, label="frontier"))
    if beside:
        handles.append(Line2D([], [], linestyle="none", label="numbers: sparsity"))
    if any(e.y.error is not None for e in found.entries):
        handles.append(
            Line2D([], [], linestyle="none", marker="|", color=colors.ink, label=_error_name(found))
        )
    axes.figure.legend(
        handles=handles, loc="outside right upper", frameon=False, fontsize=7.5, handletextpad=0.4,
        ncols=-(-len(handles) // _LEGEND_ROWS),
    )  # fmt: skip


def _error_name(found: TradeOff) -> str:
    ours = any(e.y.error is not None and not e.what.published for e in found.entries)
    papers = any(e.y.error is not None and e.what.published for e in found.entries)
    return "± standard error" + ("\n(paper: as printed)" if papers else "") if ours else "± as printed"
