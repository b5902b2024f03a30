"""What the page knows of a model: its layers, the roles they can play, and costs as polynomials in widths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import product
from math import prod
from typing import Any

from iftplan.base.errors import InputError
from iftplan.families.builtin import FAMILIES
from iftplan.masks.distributions import Distribution
from iftplan.models.polynomial import Polynomial
from iftplan.models.spec import Couplings, Kind, LayerSpec, ModelSpec, WeightLayer
from iftplan.plans.plan import WHOLE, KeptFor
from iftplan.plans.policy import Policy
from iftplan.plans.rows import PRODUCT_REASON, ChannelDimension, channel_dimensions, role_of, stack_dimensions

PAGE_FAMILIES = ("wide", "parallel", "factorized", "doped", "lowrank", "none")
"""Families that the page plans; N:M fixes the density, which leaves no slider."""

_KEPT = tuple(
    frozenset(name for name, kept in (("first", first), ("last", last)) if kept)
    for last, first in product((False, True), repeat=2)
)
"""What can be kept dense, in the order of the page's two switches."""


def describe(spec: ModelSpec) -> dict[str, Any]:
    """Description of a model for the page, as JSON can hold it.

    Args:
        spec: with its couplings, where wide plans are to be tried.

    Raises:
        InputError: a layer of a kind that only single layers have.
    """
    fused = [w.layer.name for w in spec.layers if w.layer.kind is Kind.ATTENTION]
    if fused:
        raise InputError(
            f"{fused[0]} is a fused attention layer, which iftplan solve takes; a model has its projections one by one."
        )
    roles: dict[tuple[str, str], int] = {}
    layers = [_layer(spec, weight, roles) for weight in spec.layers]
    couplings = spec.couplings
    return {
        "source": spec.source,
        "inputs": [str(one) for one in spec.inputs],
        "families": {name: FAMILIES[name].definition.title for name in PAGE_FAMILIES if name != "none"},
        "scopes": [scope.value for scope in WHOLE],
        "distributions": [one.value for one in Distribution],
        "heads": couplings.heads if couplings else "",
        "refusal": "" if couplings else _refusal(spec),
        "widths": {
            name: {"size": _number(w.size), "multiple": _number(w.multiple_of), "fixed": w.fixed}
            for name, w in (couplings.widths if couplings else {}).items()
        },
        "layers": layers,
        "products": [
            {
                "name": p.name,
                "operator": p.operator,
                "macs": _number(p.macs),
                "widened": _terms(couplings.product_macs[p.name]) if couplings else None,
            }
            for p in spec.products
        ],
        "roles": list(roles),
        "tooSmall": KeptFor.SIZE.value,
        "product": PRODUCT_REASON,
        "notes": [*(couplings.notes if couplings else ()), *spec.assumptions],
    }


def _refusal(spec: ModelSpec) -> str:
    why = (spec.refusal or "its description holds no width couplings").rstrip(".")
    return f"This model cannot be widened: {why}. Parallel, factorized and doped keep every outer shape."


def _layer(spec: ModelSpec, weight: WeightLayer, roles: dict[tuple[str, str], int]) -> dict[str, Any]:
    return {
        "name": weight.layer.name,
        "dense": _spec(weight.layer),
        "widened": _widened(spec.couplings, weight),
        "roles": {family: [_role(weight, family, kept, roles) for kept in _KEPT] for family in PAGE_FAMILIES},
    }


def _role(weight: WeightLayer, family: str, kept: frozenset[str], roles: dict[tuple[str, str], int]) -> int:
    """The number of a layer's role and reason in the table of all that occur."""
    policy = Policy(FAMILIES.get(family), Fraction(3, 4), keep_dense=kept)
    role, reason = role_of(weight, policy)
    return roles.setdefault((role.value, reason), len(roles))


def _spec(layer: LayerSpec) -> dict[str, Any]:
    return {
        "kind": layer.kind.value,
        "transposed": layer.kind.transposed,
        "depthwise": layer.depthwise,
        "in": _number(layer.in_channels or 0),
        "out": _number(layer.out_channels or 0),
        "kernel": list(layer.kernel),
        "groups": layer.groups,
        "positions": _number(layer.positions),
        "experts": layer.experts,
    }


def _widened(couplings: Couplings | None, weight: WeightLayer) -> Mapping[str, Any] | None:
    """How the layer follows the widths; None where it does not."""
    layer = weight.layer
    if couplings is None or weight.weight not in couplings.shapes:
        return None
    if layer.positions and weight.weight not in couplings.weight_macs:
        return {
            "refusal": f"{layer.name} cannot be widened: how its MACs follow the widths is not known. Parallel, factorized and doped keep every outer shape."
        }
    sizes = {name: width.size for name, width in couplings.widths.items()}
    shape = couplings.shapes[weight.weight]
    before = tuple(dimension.at(sizes) for dimension in shape)
    macs = _terms(couplings.weight_macs[weight.weight]) if layer.positions else None
    if prod(before) != layer.weights:
        return {"macs": macs, "matrix": False}
    stacked = stack_dimensions(layer, before)
    inputs, outputs = channel_dimensions(weight, before[stacked:])
    ones = shape[stacked:]
    return {
        "macs": macs,
        "matrix": True,
        "in": _channels(ones, inputs),
        "out": _channels(ones, outputs),
        "experts": _terms(shape[0]) if layer.experts > 1 else None,
        "shape": [_terms(dimension) for dimension in ones],
    }


def _channels(shape: Sequence[Polynomial], dimension: ChannelDimension) -> list[Sequence[Any]]:
    one = shape[dimension.index] if dimension.index < len(shape) else Polynomial.constant(1)
    return _terms(one * Polynomial.constant(dimension.times))


def _terms(polynomial: Polynomial) -> list[Sequence[Any]]:
    return [
        (_number(t.coefficient.numerator), _number(t.coefficient.denominator), t.powers)
        for t in polynomial.terms
    ]


def _number(value: int) -> int | str:
    """A whole number as JavaScript reads it without loss: as text beyond 2**53."""
    return value if abs(value) < 2**53 else str(value)
