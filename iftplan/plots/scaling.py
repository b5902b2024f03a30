"""Scaling laws against compute: the best sparsity for several sizes, and the loss of dense, sparse and expert models."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from matplotlib.axes import Axes

from iftplan.base.units import abbreviate
from iftplan.plots.files import Picture
from iftplan.plots.style import DASHES, Theme, count_axis, drawing, label_text, new_axes, new_row, theme_named
from iftplan.runs.laws.advice.sparse import Advice
from iftplan.runs.laws.joint_moe import JOINT_MOE
from iftplan.runs.laws.law import Law
from iftplan.runs.laws.sparse import LAWS

_STEPS = 120
_SIZES = (0.1, 1.0, 10.0)  # times what was asked for
_DASHED = ("-", "--", "--", "-.")
SIZE = 80e6
"""Active parameters of `families_picture` where no size is given: the sparse law's runs end there."""


def advice_picture(asked: Advice, *, title: str = "", theme: str = "light") -> Picture:
    """Curves of the best sparsity over four decades of compute, at a tenth, once and ten times the size.

    Args:
        asked: size and compute, and the law to ask.
        title: of the figure; by default the law's name.
        theme: "light", "dark" or "print".
    """
    colors, law = theme_named(theme), asked.law
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


def families_picture(
    params: float = SIZE, joint: Law = JOINT_MOE, *, title: str = "", theme: str = "light"
) -> Picture:
    """Curves of the loss over five decades of training compute, at equal parameters that are active in inference.

    Dense and sparse models by the sparse law, beside dense models and mixtures of experts by the joint law: two panels,
    since their losses are of different data.

    Args:
        params: non-zero or active parameters of every model.
        joint: joint law of dense models and mixtures of experts, published or fitted.
        title: of the figure.
        theme: "light", "dark" or "print".
    """
    colors, law = theme_named(theme), LAWS["t5-c4"]
    sparse, start = law.as_law(), 6 * params * (20 * params)  # 20 tokens for each parameter
    computes = [start * 10 ** (5 * i / _STEPS - 0.5) for i in range(_STEPS + 1)]

    def best(c: float) -> dict[str, float]:
        sparsity = law.optimal_sparsity(params, c)
        return {"sparsity": sparsity, "params": params, "data": law.data(sparsity, params, c)}

    def dense(c: float) -> dict[str, float]:
        return {"sparsity": 0.0, "params": params, "data": law.data(0.0, params, c)}

    def experts(count: int) -> Callable[[float], dict[str, float]]:
        return lambda c: {"params": params, "data": c / (6 * params), "experts": float(count)}

    with drawing(colors):
        figure, (left, right) = new_row(colors, 2, 8.4, 4.5, share=False)
        _curve(left, colors, 0, "dense", sparse, computes, dense)
        _curve(left, colors, 1, "sparse, at its best sparsity", sparse, computes, best)
        for i, count in ((0, 1), (2, 8), (3, 32)):
            label = "dense" if count == 1 else f"{count} experts"
            _curve(right, colors, i, label, joint, computes, experts(count))
        for axes, name in ((left, f"{law.name} (arXiv 2309.08520)"), (right, joint.source)):
            axes.set_xscale("log")
            axes.set_xlim(computes[0], computes[-1])
            count_axis(axes, "x", "training compute (FLOPs)")
            axes.set_title(name, loc="left", fontsize=8.5, color=colors.muted)
            axes.legend(frameon=False, fontsize=8, handlelength=3.5)
        left.set_ylabel("loss")
        left.annotate(
            "dotted: beyond the runs of the fit", (0.02, 0.02), xycoords="axes fraction", fontsize=7,
            color=colors.muted,
        )  # fmt: skip
        if joint.variable("data").high is None:
            right.annotate(
                "tokens of the fit's runs are not known", (0.02, 0.02), xycoords="axes fraction", fontsize=7,
                color=colors.muted,
            )  # fmt: skip
        shown = label_text(title or f"Loss at {abbreviate(params)} active parameters", 90)
        figure.suptitle(shown, fontsize=10, x=0.01, ha="left")
    last = computes[-1]
    words = (
        f"Loss against training FLOPs at {abbreviate(params)} active parameters. At {last:.3g} FLOPs, "
        f"{sparse.name}: dense {sparse.loss(**dense(last)):.3f}, sparse {sparse.loss(**best(last)):.3f}; joint-moe: "
        f"dense {joint.loss(**experts(1)(last)):.3f}, 32 experts {joint.loss(**experts(32)(last)):.3f}."
    )
    return Picture(figure, shown, words)


def _curve(
    axes: Axes,
    colors: Theme,
    which: int,
    label: str,
    law: Law,
    computes: Sequence[float],
    at: Callable[[float], dict[str, float]],
) -> None:
    """A law against compute, dotted where it is extrapolated.

    Args:
        axes: to draw in.
        colors: of the theme.
        which: colour and dash of the curve; dots are for what is extrapolated.
        label: in the legend.
        law: that gives the loss.
        computes: FLOPs, in rising order.
        at: the law's variables for each of them.
    """
    points = [(c, law.loss(**at(c)), _inside(law, at(c))) for c in computes]
    axes.plot(
        [c for c, _, _ in points], [loss if inside else float("nan") for _, loss, inside in points],
        color=colors.palette[which], linestyle=_DASHED[which], linewidth=2.2, label=label,
    )  # fmt: skip
    around = [min(inside for _, _, inside in points[max(i - 1, 0) : i + 2]) for i in range(len(points))]
    axes.plot(
        [c for c, _, _ in points], [float("nan") if in_ else loss for (_, loss, _), in_ in zip(points, around, strict=True)],
        color=colors.palette[which], linestyle=":", linewidth=1.5,
    )  # fmt: skip


def _inside(law: Law, values: dict[str, float]) -> bool:
    return not any(variable.beyond(values[variable.name]) for variable in law.variables)
