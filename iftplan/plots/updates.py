"""Masks over a run: how much of the network was ever explored, and how much each update exchanged."""

from __future__ import annotations

from typing import Any

from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from iftplan.plots.files import Picture
from iftplan.plots.style import MARKERS, count_axis, drawing, label_text, new_axes, theme_named
from iftplan.runs.histories.masks import History, read_history
from iftplan.runs.histories.reading import Runs, read_all

_MOST_NAMED = 10


def updates_picture(runs: Runs[History], *, title: str = "", theme: str = "light") -> Picture:
    """Chart of ITOP (lines) and churn (dashes) against steps, one colour a run.

    Args:
        runs: directories that `iftplan train` wrote, or their histories; one or several.
        title: of the figure; by default "Masks over training".
        theme: "light", "dark" or "print".

    Raises:
        InputError: a directory without a history.
    """
    histories = read_all(runs, read_history)
    colors = theme_named(theme)
    many = len(histories) > _MOST_NAMED
    with drawing(colors):
        figure, axes = new_axes(colors)
        handles = []
        for i, history in enumerate(histories):
            color = colors.palette[i % len(colors.palette)] if not many else colors.palette[0]
            marker = MARKERS[i % len(MARKERS)] if len(history.steps) <= 30 and not many else ""
            look: dict[str, Any] = {
                "color": color,
                "marker": marker,
                "markersize": 4,
                "alpha": 0.45 if many else 1.0,
            }
            axes.plot(history.steps, history.itop, linewidth=1.6, **look)
            axes.plot(history.steps, history.churn, linewidth=1.1, linestyle="--", fillstyle="none", **look)
            if not many:
                handles.append(
                    Line2D([], [], color=color, marker=marker, markersize=4, label=label_text(history.name))
                )
        handles += [
            Line2D([], [], color=colors.ink, linewidth=1.6, label="ITOP: weights active so far"),
            Line2D(
                [], [], color=colors.ink, linewidth=1.1, linestyle="--", label="churn: replaced by an update"
            ),
        ]
        axes.set_ylim(-0.02, 1.02)
        axes.set_ylabel("ITOP: fraction of all weights;\nchurn: fraction of active weights")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        count_axis(axes, "x", "training step")
        heading = title or "Masks over training"
        axes.set_title(label_text(heading, 90), loc="left", fontsize=10)
        figure.legend(handles=handles, loc="outside right upper", frameon=False, fontsize=8)
    last = "; ".join(f"{h.name} ends at {h.itop[-1]:.3f}" for h in histories[:_MOST_NAMED])
    return Picture(
        figure, heading, f"ITOP rate and churn of {len(histories)} runs against steps. ITOP: {last}."
    )
