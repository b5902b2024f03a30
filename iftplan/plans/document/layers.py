"""A plan's layers in notation: what each was, and what stands in its place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from iftplan.models.notation import canonical, layer_notation, parse_layer
from iftplan.models.spec import LayerSpec
from iftplan.plans.plan import WIDTHS, Plan, PlannedLayer, Role

_LONGEST = 60
"""Digits of a number in a row: a stack of matrices is written with all its MACs as positions."""


def before_notation(layer: PlannedLayer) -> str:
    """The dense layer in layer notation; the operator of a product, and nothing for a layer that is new."""
    if layer.role is Role.ADDED:
        return ""
    return layer_notation(layer.before) if layer.before else layer.kind


def after_notation(layer: PlannedLayer, transform: str) -> str:
    """Notation of what stands in a layer's place in a plan of that family, such as `4 × linear:8-8`; the operator of a product.

    Empty for a layer that the planned model does not have.
    """
    if layer.role is Role.REMOVED:
        return ""
    if layer.after is None:
        return layer.kind
    own = layer_notation(layer.after)
    for key, unknown in layer.structure.items():
        if key not in WIDTHS:
            return _restructured(own, layer.transform or transform, key, unknown)
    return own


def _restructured(own: str, transform: str, key: str, unknown: float | None) -> str:
    match transform:
        case "parallel":
            return f"{unknown} × {own}"
        case "factorized" | "lowrank":
            return f"{own} via rank {unknown}"
        case "monarch" | "btt":
            return f"{own} in blocks of rank {unknown}"
        case "butterfly":
            return f"{own} via butterflies of rank {unknown}"
        case "kronecker":
            return f"{own} via {unknown} Kronecker product{'s' * (unknown != 1)}"
        case "doped":
            return f"{own} + rank {unknown}"
        case "experts":
            return own  # which says how many they are
        case _:
            return f"{own}, {key} {unknown}"


def parse_before(text: str) -> LayerSpec:
    """The dense layer of a row.

    Raises:
        InputError: it cannot be read.
    """
    return canonical(parse_layer(text, digits=_LONGEST))


def parse_after(text: str) -> LayerSpec:
    """The layer at the plan's widths in what stands in its place; the structure is told beside it.

    Raises:
        InputError: it cannot be read.

    Example:
        >>> layer_notation(parse_after("4 × linear:8-8")), layer_notation(parse_after("linear:8-8 via rank 2"))
        ('linear:8-8', 'linear:8-8')
    """
    _, branches, own = text.rpartition(" × ")
    own = own if branches else text
    for word in (" via ", " in ", " + ", ", "):
        own = own.partition(word)[0]
    return canonical(parse_layer(own, digits=_LONGEST))


def other_notations(plan: Plan, written: Sequence[tuple[str, str]]) -> Iterator[str]:
    """Sentences about rows whose `before` or `after` was written otherwise than their values make it.

    Args:
        plan: as it was read.
        written: both texts of each row.
    """
    for i, (layer, (before, after)) in enumerate(zip(plan.layers, written, strict=True)):
        made = {"before": before_notation(layer), "after": after_notation(layer, plan.transform)}
        for (key, text), given in zip(made.items(), (before, after), strict=True):
            if text != given:
                yield f"layers.{i}.{key} is {given!r}, but the rest of the row makes it {text!r}"
