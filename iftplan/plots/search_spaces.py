"""Search spaces against sparsity, a line for each family."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from iftplan.plots.files import Picture
from iftplan.plots.style import DASHES, MARKERS, THEMES, count_axis, drawing, label_text, new_axes

Curve = Sequence[tuple[float, float]]
"""Sparsity and bits, one after the other."""


def cardinality_picture(
    curves: Mapping[str, Curve], subject: str, *, title: str = "", theme: str = "light"
) -> Picture:
    """Chart of the number of masks in bits (log2), by family.

    Args:
        curves: family → its search space at the sparsities where it has one.
        subject: whose.
        title: above it.
        theme: "light", "dark" or "print".
    """
    colors = THEMES[theme]
    with drawing(colors):
        figure, axes = new_axes(colors)
        for i, (name, curve) in enumerate(curves.items()):
            xs, ys = zip(*curve, strict=True)
            width = max(1.2, 3.6 - 0.6 * i)  # families may coincide, and the wider line shows below
            axes.plot(
                xs, ys, color=colors.palette[i % len(colors.palette)], linestyle=DASHES[i % len(DASHES)],
                marker=MARKERS[i % len(MARKERS)], markersize=4 + width, linewidth=width, label=label_text(name),
                markevery=max(1, len(xs) // 20),
            )  # fmt: skip
        axes.set_xlim(0, 1)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("sparsity")
        count_axis(axes, "y", "search space: log2 of the number of masks (bits)")
        heading = title or f"Search space of {subject} at equal MACs"
        axes.set_title(label_text(heading, 90), loc="left", fontsize=10)
        figure.legend(loc="outside right upper", frameon=False, fontsize=8)
    ends = "; ".join(f"{name} up to {max(y for _, y in curve):.3g} bits" for name, curve in curves.items())
    return Picture(figure, heading, f"{heading}, by family and sparsity: {ends}.")
