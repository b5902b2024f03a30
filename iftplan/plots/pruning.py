"""Quality of a trained network against one-shot sparsity, a line a method, and where each drops."""

from __future__ import annotations

from iftplan.base.errors import InputError
from iftplan.base.units import decimal, share
from iftplan.plots.files import Picture
from iftplan.plots.style import DASHES, MARKERS, drawing, label_text, new_axes, theme_named
from iftplan.runs.results.pruning import DropPoint, PruningCurve


def pruning_picture(curve: PruningCurve, *, title: str = "", theme: str = "light") -> Picture:
    """Chart of quality against sparsity; a filled point is the last within the tolerance.

    Args:
        curve: with quality.
        title: of the figure; by default "One-shot pruning of" and the model.
        theme: "light", "dark" or "print".

    Raises:
        InputError: the curve has no quality.
    """
    if curve.metric is None:
        raise InputError("the networks were not scored, so there is no curve to draw; score them on data.")
    colors, heading = theme_named(theme), title or f"One-shot pruning of {curve.model}"
    with drawing(colors):
        figure, axes = new_axes(colors)
        sign = 1 if curve.metric_name == "perplexity" else -1
        edge = curve.metric * (1 + sign * float(curve.tolerance))
        told = (
            f"dense, less {share(curve.tolerance)}" if sign < 0 else f"dense, plus {share(curve.tolerance)}"
        )
        axes.axhline(edge, color=colors.muted, linewidth=1, linestyle=":", label=told)
        for i, drop in enumerate(curve.drop_points()):
            points = curve.of(drop.method)
            x = [0.0, *(float(point.sparsity) for point in points)]
            y = [curve.metric, *(point.metric for point in points if point.metric is not None)]
            color, look = colors.palette[i], DASHES[i % len(DASHES)]
            axes.plot(
                x, y, color=color, linestyle=look, linewidth=1.6, marker=MARKERS[i], markersize=4,
                fillstyle="none", label=drop.method,
            )  # fmt: skip
            if drop.kept is not None:
                place = x.index(float(drop.kept))
                axes.plot([x[place]], [y[place]], color=color, marker=MARKERS[i], markersize=7)
        if sign > 0:
            axes.set_yscale("log")
        axes.set_xlim(-0.02, 1.02)
        axes.set_xlabel("sparsity of the weights under masks")
        axes.set_ylabel(f"{curve.metric_name} on {label_text(curve.data)}, without training")
        axes.set_title(label_text(heading, 90), loc="left", fontsize=10)
        figure.legend(loc="outside lower center", frameon=False, fontsize=8, ncols=4)
    words = "; ".join(map(_words, curve.drop_points()))
    return Picture(
        figure, heading, f"{curve.metric_name} against one-shot sparsity, {curve.metric:.4f} dense. {words}."
    )


def _words(drop: DropPoint) -> str:
    kept = "at no sparsity" if drop.kept is None else f"up to sparsity {decimal(drop.kept, 4)}"
    return f"{drop.method} is within the tolerance {kept}"
