"""The search space of a layer or a model in every family, over sparsity."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction

from iftplan.base.errors import InfeasibleError, InputError
from iftplan.families.builtin import FAMILIES
from iftplan.families.family import Family
from iftplan.families.solver import solve
from iftplan.masks.cardinality import Cardinality
from iftplan.models.spec import LayerSpec, ModelSpec
from iftplan.plans.planner import plan
from iftplan.plans.policy import Policy

GRID = tuple(Fraction(i, 20) for i in range(1, 20))
"""Sparsities of 0.05 to 0.95."""

Curves = Mapping[str, Sequence[tuple[float, float]]]

_MASKED = ("wide", "parallel", "factorized", "doped")
PLAIN = "sparse, same width"


def layer_spaces(layer: LayerSpec) -> Curves:
    """log2 of the number of masks of one layer, by family, at equal MACs."""
    return _curves(lambda family, s: solve(layer, family, s).cardinality if family else None)


def model_spaces(spec: ModelSpec) -> Curves:
    """log2 of the number of masks of a whole model, by family, at equal MACs; beside it, plain sparsity."""
    return _curves(lambda family, s: plan(spec, Policy(family=family, sparsity=s)).cardinality)


def _curves(space: Callable[[Family | None, Fraction], Cardinality | None]) -> Curves:
    families: dict[str, Family | None] = {name: FAMILIES[name] for name in _MASKED}
    found = {name: _curve(space, family) for name, family in (families | {PLAIN: None}).items()}
    curves = {name: curve for name, curve in found.items() if curve}
    if not curves:
        raise InputError(
            "no family has a search space here. A layer needs channels given as numbers; a model needs weights "
            "that can be masked."
        )
    return curves


def _curve(
    space: Callable[[Family | None, Fraction], Cardinality | None], family: Family | None
) -> list[tuple[float, float]]:
    found = []
    for sparsity in GRID:
        try:
            cardinality = space(family, sparsity)
        except InfeasibleError:  # a gap in the line
            continue
        if cardinality is not None and cardinality.log2_masks:
            found.append((float(sparsity), cardinality.log2_masks))
    return found
