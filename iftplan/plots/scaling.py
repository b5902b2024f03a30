"""The sparse scaling law's optimum against compute, for several sizes."""

from __future__ import annotations

from iftplan.base.units import abbreviate
from iftplan.plots.files import Picture
from iftplan.plots.style import DASHES, THEMES, count_axis, drawing, label_text, new_axes
from iftplan.runs.scaling_tables import Advice

_STEPS = 120
_SIZES = (0.1, 1.0, 10.0)  # times what was asked for


def advice_picture(asked: Advice, *, title: str = "", theme: str = "light") -> Picture:
    """Curves of the best sparsity over four decades of compute, at a tenth, once and ten times the size.

    Args:
        asked: size and compute, and the law to ask.
        title: of the figure; by default the law's name.
        theme: "light", "dark" or "print".
    """
    colors, law = THEMES[theme], asked.law
    computes = [asked.compute * 10 ** (4 * i / _STEPS - 2) for i in range(_STEPS + 1)]
    with drawing(colors):
        figure, axes = new_axes(colors)
        for i, times in enumerate(_SIZES):
            params = asked.params * times
            axes.plot(
                computes, [law.optimal_sparsity(params, c, asked.kappa) for c in computes],
                color=colors.palette[i], linestyle=DASHES[i], linewidth=2.2 if times == 1 else 1.3,
                label=f"{abbreviate(params)} non-zero parameters",
            )  # fmt: skip
        axes.plot([asked.compute], [asked.sparsity], "o", color=colors.ink, zorder=4)
        beside = (8, -12) if asked.sparsity > 0.1 else (0, 8)  # below the curve, but never on the axis
        axes.annotate(
            f"{asked.sparsity:.3f}", (asked.compute, asked.sparsity), beside, textcoords="offset points",
            fontsize=8.5, fontweight="bold",
        )  # fmt: skip
        axes.axhspan(law.sparsest, 1, color=colors.grid, alpha=0.6, zorder=0, linewidth=0)
        axes.annotate(
            f"beyond {law.sparsest:g}: extrapolated", (0.01, 0.985), xycoords="axes fraction",
            fontsize=7, color=colors.muted, va="top",
        )  # fmt: skip
        axes.set_xscale("log")
        axes.set_xlim(computes[0], computes[-1])
        axes.set_ylim(-0.02, 1)
        count_axis(axes, "x", "training compute (FLOPs, two for each MAC)")
        axes.set_ylabel("optimal sparsity")
        axes.set_title(label_text(title or f"Sparse scaling law, {law.name}", 90), loc="left", fontsize=10)
        figure.legend(frameon=False, fontsize=8, loc="outside lower center", ncols=3)
    words = (
        f"Optimal sparsity against training FLOPs after the sparse scaling law of {law.name}: {asked.sparsity:.3f} "
        f"at {abbreviate(asked.params)} non-zero parameters and {asked.compute:.3g} FLOPs, rising with compute."
    )
    return Picture(figure, title or f"Sparse scaling law, {law.name}", words)
