"""A plan layer by layer: MACs before and after, and density."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from iftplan.base.arguments import check_arguments
from iftplan.base.units import Convention
from iftplan.plans.plan import Plan, PlannedLayer, Scope
from iftplan.plots.files import Picture
from iftplan.plots.style import Theme, count_axis, drawing, label_text, new_axes, si, theme_named

_NAMED = 60  # layers up to which each has its name
_STEPS = 150  # of a skyline


@check_arguments
def macs_picture(
    plan: Plan, *, convention: Convention = Convention.MAC, title: str = "", theme: str = "light"
) -> Picture:
    """Bar chart of the MACs of every layer, dense and planned, in the order of the plan.

    Args:
        plan: whose layers are drawn.
        convention: MACs, or FLOPs at two each.
        title: of the figure; by default the model, the family and the sparsity.
        theme: "light", "dark" or "print".
    """
    colors, layers = theme_named(theme), plan.layers
    per, unit = convention.per_mac, convention.unit
    dense, planned = [x.dense_macs * per for x in layers], [x.macs * per for x in layers]
    with drawing(colors):
        figure, axes = _paper(colors, layers)
        _bars(axes, dense, colors.ink, 0.2, "dense model", hatch="////")
        _bars(axes, planned, colors.palette[0], -0.2, "planned")
        _finish(figure, title or _title(plan))
        _quantity(axes, layers, f"{unit} of a forward pass{_inputs(plan)}")
    total = plan.macs(Scope.MODEL) * per, plan.dense_macs(Scope.MODEL) * per
    words = f"{unit} of {len(layers)} layers of {_name(plan)}, dense and planned: {si(total[1])} and {si(total[0])} together."
    return Picture(figure, title or _title(plan), words)


@check_arguments
def density_picture(plan: Plan, *, title: str = "", theme: str = "light") -> Picture:
    """Bar chart of the density of every weight, those under masks told from those that stay dense.

    Args:
        plan: whose layers are drawn.
        title: of the figure; by default the model, the family and the sparsity.
        theme: "light", "dark" or "print".
    """
    colors = theme_named(theme)
    layers = tuple(layer for layer in plan.layers if layer.positions)
    densities = [float(layer.density) if layer.maskable else 1.0 for layer in layers]
    with drawing(colors):
        figure, axes = _paper(colors, layers)
        label = (
            "under a mask" if _rows(layers) or all(x.maskable for x in layers) else "under a mask; 1 without"
        )
        _bars(axes, densities, colors.palette[0], 0.0, label, thickness=0.75)
        free = [0.0 if layer.maskable else 1.0 for layer in layers]
        if any(free) and _rows(layers):
            _bars(axes, free, colors.grid, 0.0, "no mask", thickness=0.75, hatch="....", edge=colors.muted)
        (axes.set_xlim if _rows(layers) else axes.set_ylim)(0, 1.02)
        _finish(figure, title or _title(plan))
        _quantity(axes, layers, "density (nonzero weights over all)")
    words = f"Density of {len(layers)} layers of {_name(plan)}: {sum(x.maskable for x in layers)} under masks"
    return Picture(figure, title or _title(plan), f"{words}, {plan.asked} asked for.")


def _rows(layers: Sequence[PlannedLayer]) -> bool:
    """Whether each layer is a row with its name; more are a skyline."""
    return len(layers) <= _NAMED


def _quantity(axes: Axes, layers: Sequence[PlannedLayer], quantity: str) -> None:
    """Name the axis along which bars reach."""
    together = _together(len(layers))
    if _rows(layers):
        count_axis(axes, "x", quantity)
    else:
        mean = f",\nmean of {together} layers at a time" if together > 1 else ""
        count_axis(axes, "y", f"{quantity}{mean}")


def _paper(colors: Theme, layers: Sequence[PlannedLayer]) -> tuple[Figure, Axes]:
    if not _rows(layers):
        figure, axes = new_axes(colors)
        axes.set_xlabel("layer, in the order of the plan")
        axes.set_xlim(0, len(layers))
        return figure, axes
    figure, axes = new_axes(colors, 7.2, max(2.2, 1.1 + 0.19 * len(layers)))
    axes.set_yticks(range(len(layers)), [_tail(layer.name) for layer in layers], fontsize=7)
    axes.set_ylim(len(layers) - 0.4, -0.6)
    axes.grid(False, axis="y")
    return figure, axes


def _bars(
    axes: Axes, values: Sequence[float], color: str, offset: float, label: str, *,
    thickness: float = 0.38, hatch: str = "", edge: str = "",
) -> None:  # fmt: skip
    """Bars where layers are rows; where they are too many, a skyline, hatched ones an outline."""
    if len(values) <= _NAMED:
        axes.barh(
            [i - offset for i in range(len(values))], values, thickness, label=label, linewidth=0.6, hatch=hatch,
            color="none" if hatch and not edge else color, edgecolor=edge or color,
        )  # fmt: skip
        return
    edges, heights = _skyline(values)
    if hatch:
        axes.stairs(heights, edges, color=color, linewidth=1.4, label=label, zorder=3)
    else:
        axes.stairs(heights, edges, color=color, fill=True, alpha=0.6, label=label)
    axes.set_ylim(0, max(axes.get_ylim()[1], 1.05 * max(heights)))


def _together(count: int) -> int:
    """How many layers make one step of a skyline."""
    return ceil(count / _STEPS)


def _skyline(values: Sequence[float]) -> tuple[list[int], list[float]]:
    size = _together(len(values))
    groups = [values[i : i + size] for i in range(0, len(values), size)]
    return [*range(0, len(values), size), len(values)], [sum(group) / len(group) for group in groups]


def _finish(figure: Figure, title: str) -> None:
    figure.suptitle(label_text(title, 90), x=0.01, ha="left", fontsize=10)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=8)


def _title(plan: Plan) -> str:
    return f"{_name(plan)}: {plan.transform} at {plan.asked}"


def _name(plan: Plan) -> str:
    return plan.model or "the model"


def _inputs(plan: Plan) -> str:
    """What the costs are of, where the plan says it: the whole input, with its batch."""
    return f", input {', '.join(map(str, plan.inputs))}" if plan.inputs else ""


def _tail(name: str, longest: int = 40) -> str:
    """The end of a long name, which is what tells layers apart; whole parts of it where one is short enough."""
    text = label_text(name, 400)
    if len(text) <= longest:
        return text
    end = text[1 - longest :]
    return f"…{end[end.find('.') + 1 :]}" if "." in end[:-1] else f"…{end}"
