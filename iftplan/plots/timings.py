"""Time over sparsity at equal MACs: the ideal, what dense operators on masked weights take, and what was measured.

After the third figure of the Sparse-IFT paper (arXiv 2303.11525).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Final

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from iftplan.plans.speed.timings import Bench, Measured
from iftplan.plots.files import Picture
from iftplan.plots.style import DASHES, MARKERS, Theme, drawing, label_text, new_row, theme_named

_UNDRAWN: Final = ("dense", "dense-best", "dense-half")  # what ratios are to
_ANY_MASK: Final = ("masked-dense", "torch-csr")  # take what they take whatever the mask's structure
_PASSES: Final = {"forward": "forward", "step": "forward and backward"}

Series = Mapping[str, Mapping[float, list[float]]]


def bench_picture(bench: Bench, *, title: str = "", theme: str = "light") -> Picture:
    """Chart of times over the best dense time of the original layers, passes side by side.

    Bars reach from the fastest to the slowest of several layers.

    Args:
        bench: measurements of one machine.
        title: of the figure; by default the machine.
        theme: "light", "dark" or "print".
    """
    colors = theme_named(theme)
    passes = {
        one.passes: _series([m for m in bench.measured if m.passes == one.passes]) for one in bench.measured
    }
    names = sorted({name for series in passes.values() for name in series})
    named = title or f"Time at equal MACs, {bench.machine}"
    with drawing(colors):
        figure, row = new_row(colors, len(passes), 7.2 if len(passes) == 1 else 9.6, 4.8)
        for axes, (kind, series) in zip(row, passes.items(), strict=True):
            axes.set_title(_PASSES.get(kind, kind), loc="left", fontsize=9)
            _guide_lines(axes, max(s for points in series.values() for s in points), colors)
            for i, name in enumerate(names):
                if name in series:
                    _line(axes, name, series[name], i, colors)
            axes.set_yscale("log")
            axes.set_xlabel("sparsity")
        row[0].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        row[0].yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}×"))
        row[0].yaxis.set_minor_formatter(NullFormatter())
        row[0].set_ylabel("time over the best dense time, log scale")
        figure.suptitle(label_text(named, 90), x=0.01, ha="left", fontsize=10)
        found = {
            label: handle
            for axes in row
            for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        figure.legend(
            found.values(), found.keys(), frameon=False, fontsize=8, loc="outside lower center", ncols=3
        )
    told = "; ".join(
        f"{kind}, {name}: {', '.join(f'{median(r):.2f} at {s:g}' for s, r in sorted(points.items()))}"
        for kind, series in passes.items()
        for name, points in series.items()
    )
    return Picture(
        figure, named, f"Time of planned layers over the best dense time of the original ones: {told}."
    )


def _series(measured: Sequence[Measured]) -> Series:
    """Backend (with its mask, and its threads where they differ) → sparsity → ratios of layers."""
    found: dict[str, dict[float, list[float]]] = {}
    threads = len({one.threads for one in measured}) > 1
    for one in measured:
        for timing in one.timings:
            if timing.backend in _UNDRAWN:
                continue
            name = (
                timing.backend if timing.backend in _ANY_MASK else f"{timing.backend}, {one.pair.structure}"
            )
            name = f"{name}, {one.threads} threads" if threads else name
            found.setdefault(name, {}).setdefault(float(one.pair.sparsity), []).append(timing.ratio)
    return found


def _guide_lines(axes: Axes, last: float, colors: Theme) -> None:
    grid = [last * i / 60 for i in range(61)]
    axes.plot(grid, [1] * len(grid), color=colors.ink, linewidth=1.2, label="ideal: as fast as dense")
    axes.plot(
        grid, [1 / (1 - s) for s in grid], color=colors.muted, linestyle="--", linewidth=1.2,
        label="masked-dense, by MACs",
    )  # fmt: skip


def _line(axes: Axes, name: str, points: Mapping[float, list[float]], i: int, colors: Theme) -> None:
    sparsities = sorted(points)
    middle = [median(points[s]) for s in sparsities]
    reach = [
        [m - min(points[s]) for s, m in zip(sparsities, middle, strict=True)],
        [max(points[s]) - m for s, m in zip(sparsities, middle, strict=True)],
    ]
    axes.errorbar(
        sparsities, middle, yerr=reach, elinewidth=0.8, linewidth=1.4, marker=MARKERS[i % len(MARKERS)], markersize=4,
        color=colors.palette[i % len(colors.palette)], linestyle=DASHES[i // len(colors.palette) % len(DASHES)],
        label=label_text(name),
    )  # fmt: skip
