"""Spectra of masks over a run: how well each layer's graph mixes its inputs, and what updates do to that."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from iftplan.masks.spectra import MEASURES
from iftplan.plots.files import Picture
from iftplan.plots.style import MARKERS, Theme, count_axis, drawing, label_text, theme_named
from iftplan.runs.histories.reading import Runs, read_all
from iftplan.runs.histories.spectra import SpectralHistory, read_spectra

_MOST_NAMED = 10
_TITLES = {
    "delta_r": "Δr: bound of Ramanujan graphs − σ₂",
    "delta_s": "Δs: 2·√(σ₁−1) − σ₂",
    "imdb": "IMDB: mean Δr over inputs of one degree",
    "weighted_gap": "weighted gap: σ₁ − σ₂ of |weights|",
}


def spectra_picture(runs: Runs[SpectralHistory], *, title: str = "", theme: str = "light") -> Picture:
    """Chart of Δr, Δs, IMDB and the weighted gap against steps: the mean over layers, one colour a run.

    One run alone has its layers behind the mean.

    Args:
        runs: directories of runs that measured their masks, or their histories; one or several.
        title: of the figure; by default "Spectra of masks over training".
        theme: "light", "dark" or "print".

    Raises:
        InputError: a directory without spectra.
    """
    histories = read_all(runs, read_spectra)
    colors = theme_named(theme)
    heading = title or "Spectra of masks over training"
    with drawing(colors):
        figure = Figure(figsize=(8.4, 5.4), dpi=150, layout="constrained")
        panels: list[Axes] = list(figure.subplots(2, 2, sharex=True).flat)
        for axes, measure in zip(panels, MEASURES, strict=True):
            _set_look(axes, colors)
            if len(histories) == 1:
                _draw_layers(axes, histories[0], measure, colors)
            for i, history in enumerate(histories):
                axes.plot(history.steps, history.means(measure), **_look(colors, i, history, len(histories)))
            axes.set_title(_TITLES[measure], loc="left", fontsize=8.5)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        for axes in panels[2:]:
            count_axis(axes, "x", "training step")
        figure.suptitle(label_text(heading, 90), x=0.01, ha="left", fontsize=10)
        figure.legend(
            handles=_handles(colors, histories), loc="outside right upper", frameon=False, fontsize=8
        )
    last = "; ".join(f"{h.name} ends at {h.means('delta_r')[-1]:.3f}" for h in histories[:_MOST_NAMED])
    return Picture(
        figure,
        heading,
        f"Spectra of the masks of {len(histories)} run{'s' * (len(histories) != 1)} against steps. Δr: {last}.",
    )


def _set_look(axes: Axes, colors: Theme) -> None:
    axes.grid(True, color=colors.grid, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.axhline(0, color=colors.muted, linewidth=0.8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _draw_layers(axes: Axes, history: SpectralHistory, measure: str, colors: Theme) -> None:
    for values in history.layers.values():
        axes.plot(history.steps, values[measure], color=colors.muted, linewidth=0.7, alpha=0.6)


def _look(colors: Theme, i: int, history: SpectralHistory, runs: int) -> dict[str, Any]:
    many = runs > _MOST_NAMED
    return {
        "color": colors.palette[0 if many else i % len(colors.palette)],
        "marker": MARKERS[i % len(MARKERS)] if len(history.steps) <= 30 and not many else "",
        "markersize": 4,
        "linewidth": 1.6,
        "alpha": 0.45 if many else 1.0,
    }


def _handles(colors: Theme, histories: Sequence[SpectralHistory]) -> list[Line2D]:
    named = histories if len(histories) <= _MOST_NAMED else ()
    handles = [
        Line2D([], [], label=label_text(history.name), **_look(colors, i, history, len(histories)))
        for i, history in enumerate(named)
    ]
    if len(histories) == 1:
        handles.append(Line2D([], [], color=colors.muted, linewidth=0.7, label="each layer"))
    return handles
