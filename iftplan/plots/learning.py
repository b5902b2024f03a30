"""Loss over a run against the MACs that training spent: what a budget bought, all along it."""

from __future__ import annotations

from math import nan

from iftplan.base.units import Convention
from iftplan.plots.files import Picture
from iftplan.plots.style import MARKERS, count_axis, drawing, label_text, new_axes, theme_named
from iftplan.runs.histories.learning import LearningCurve, LearningHistory, learning_curves, read_learning
from iftplan.runs.histories.reading import Runs, read_all

_MOST_NAMED = 10


def learning_picture(
    runs: Runs[LearningHistory],
    *,
    convention: Convention = Convention.MAC,
    title: str = "",
    theme: str = "light",
) -> Picture:
    """Chart of loss against training MACs, one line a configuration.

    Runs that agree in all but the seed are one line, their mean, with a band of one standard error on either side. The
    loss is that on the validation data where every run keeps some aside, otherwise that on the test data.

    Args:
        runs: directories that `iftplan train` wrote, or their histories; one or several.
        convention: whether the axis counts MACs or FLOPs.
        title: of the figure; by default "Loss against the cost of training".
        theme: "light", "dark" or "print".

    Raises:
        InputError: a directory without a history.
    """
    which, curves = learning_curves(read_all(runs, read_learning))
    colors = theme_named(theme)
    many = len(curves) > _MOST_NAMED
    heading = title or "Loss against the cost of training"
    with drawing(colors):
        figure, axes = new_axes(colors)
        for i, curve in enumerate(curves):
            color = colors.palette[0 if many else i % len(colors.palette)]
            costs = [macs * convention.per_mac for macs in curve.train_macs]
            means = [nan if one is None else one.mean for one in curve.loss]
            axes.plot(
                costs,
                means,
                color=color,
                marker=MARKERS[i % len(MARKERS)] if len(costs) <= 30 and not many else "",
                markersize=4,
                linewidth=1.6,
                alpha=0.45 if many else 1.0,
                label="_" if many else label_text(_label(curve)),
            )
            if curve.runs > 1:
                errors = [nan if one is None else one.error or 0.0 for one in curve.loss]
                axes.fill_between(
                    costs,
                    [mean - error for mean, error in zip(means, errors, strict=True)],
                    [mean + error for mean, error in zip(means, errors, strict=True)],
                    color=color,
                    alpha=0.18,
                    linewidth=0,
                )
        axes.set_ylabel(f"{which} loss")
        count_axis(axes, "x", f"training {convention.unit}")
        axes.set_title(label_text(heading, 90), loc="left", fontsize=10)
        if not many:
            figure.legend(loc="outside right upper", frameon=False, fontsize=8)
    last = "; ".join(f"{curve.name} ends at {_last(curve)}" for curve in curves[:_MOST_NAMED])
    return Picture(figure, heading, f"{which} loss of {len(curves)} configurations: {last}.")


def _label(curve: LearningCurve) -> str:
    return curve.name if curve.runs == 1 else f"{curve.name}, {curve.runs} seeds"


def _last(curve: LearningCurve) -> str:
    end = curve.loss[-1]
    if end is None:
        return "a loss that is not finite"
    return f"{end.mean:.3f}" if end.error is None else f"{end.mean:.3f} ± {end.error:.3f}"
