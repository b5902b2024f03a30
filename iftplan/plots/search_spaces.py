"""Search spaces against sparsity, a line for each family."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from iftplan.base.arguments import check_arguments
from iftplan.base.errors import InputError
from iftplan.models.notation import parse_layer
from iftplan.models.sources import parse_source
from iftplan.models.spec import LayerSpec, ModelSpec
from iftplan.models.zoo.specs import zoo_spec
from iftplan.plans.plan import Plan
from iftplan.plans.search.spaces import layer_spaces, model_spaces
from iftplan.plots.files import Picture
from iftplan.plots.style import DASHES, MARKERS, count_axis, drawing, label_text, new_axes, theme_named

Curve = Sequence[tuple[float, float]]
"""Sparsity and bits, one after the other."""


@check_arguments
def cardinality_picture(
    subject: ModelSpec | LayerSpec | Plan | str, *, title: str = "", theme: str = "light"
) -> Picture:
    """Chart of the number of masks in bits (log2) over sparsity, a line for each family, at equal MACs.

    Args:
        subject: a model from `iftplan.read_model`, a layer, or either's name such as "zoo:resnet18" or "conv3x3:64-64";
            of a plan, the bundled model that it was made for.
        title: above it.
        theme: "light", "dark" or "print".

    Raises:
        InputError: a name that cannot be read, or a plan of a model that is not bundled, which holds one sparsity alone.

    Example:
        >>> picture = cardinality_picture("linear:64-64")
        >>> picture.save("masks.png")  # doctest: +SKIP
    """
    found = _resolved(subject)
    called = found.source or "the network" if isinstance(found, ModelSpec) else str(found)
    curves = model_spaces(found) if isinstance(found, ModelSpec) else layer_spaces(found)
    return _chart(curves, called, title, theme)


def _resolved(subject: ModelSpec | LayerSpec | Plan | str) -> ModelSpec | LayerSpec:
    """The model or the layer that is meant."""
    if isinstance(subject, str):
        bundled = zoo_spec(parse_source(subject).text) if subject.startswith("zoo:") else None
        return bundled or parse_layer(subject)
    if not isinstance(subject, Plan):
        return subject
    spec = zoo_spec(subject.model, subject.inputs, heads=subject.heads)
    if spec is None:
        raise InputError(
            f"a plan has one sparsity of {subject.model or 'its model'}, and this picture shows all of them. Give it the model: cardinality_picture(iftplan.read_model({subject.model or '…'!r}))."
        )
    return spec


def _chart(curves: Mapping[str, Curve], subject: str, title: str, theme: str) -> Picture:
    colors = theme_named(theme)
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
