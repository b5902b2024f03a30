"""The widths of a plan: one multiplier for the whole model, every free width rounded up from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from fractions import Fraction
from math import ceil, lcm

from iftplan.base.errors import InfeasibleError
from iftplan.base.units import count, decimal_text
from iftplan.families.integer_search import Multiplier
from iftplan.models.spec import Couplings, ModelSpec, WeightLayer, Width
from iftplan.plans.closing import Books
from iftplan.plans.plan import KeptFor, Role
from iftplan.plans.policy import Policy
from iftplan.plans.rows import role_of, rows_of

STAYS = "no layer that has it is in a family that widens"
"""Why a width stays as it is among several families."""

_WIDEST = 2**16
"""Square of the multiplier above which no width is looked for that meets a budget."""


def plan_widths(spec: ModelSpec, policy: Policy) -> tuple[Multiplier, dict[str, int]]:
    """Width multiplier and the new size of every free width; no sizes for families that keep the width.

    Raises:
        InfeasibleError: the family widens, and the model's couplings are not known.
    """
    if not policy.widens:
        return Multiplier(Fraction(1)), {}
    if spec.couplings is None and policy.family and not policy.family.solves_width and not policy.sparsity:
        return Multiplier(Fraction(1)), {}  # as wide as Sparse Wide is at density 1
    if spec.couplings is None:
        raise InfeasibleError(
            f"{spec.source or 'the model'} cannot be widened: "
            f"{(spec.refusal or 'its spec has no width couplings').rstrip('.')}. Use parallel, factorized or "
            "doped, which keep the width."
        )
    multiplier = Multiplier.closing(policy.density)
    if policy.close_by != "density" or policy.mask.density is not None:
        multiplier = _closing_multiplier(spec, policy, multiplier)
    return multiplier, _scaled(_movable(spec, spec.couplings, policy), multiplier, policy)


def _movable(spec: ModelSpec, couplings: Couplings, policy: Policy) -> Mapping[str, Width]:
    """The widths, those held at their size that no layer has whose family widens it, in the modules that are planned."""
    if not policy.within and policy.assignment is None:
        return couplings.widths
    why = STAYS if policy.assignment else KeptFor.MODULE.value
    inside = {
        symbol
        for weight in spec.layers
        if policy.moves(weight.layer.name) and (policy.assignment is None or _grows(weight, policy))
        for dimension in couplings.shapes.get(weight.weight, ())
        for symbol in dimension.symbols
    }
    return {
        name: width if name in inside else replace(width, fixed=width.fixed or why)
        for name, width in couplings.widths.items()
    }


def _grows(weight: WeightLayer, policy: Policy) -> bool:
    """Whether a layer is one that its family changes, rather than one that only follows its neighbours."""
    return role_of(weight, policy)[0] in (Role.TRANSFORMED, Role.DEPTHWISE)


def _scaled(widths: Mapping[str, Width], multiplier: Multiplier, policy: Policy) -> dict[str, int]:
    scale = multiplier.scale if policy.rounding == "cover" else _downwards(widths, multiplier)
    return {
        name: width.size if width.fixed else scale(width.size, lcm(width.multiple_of, policy.width_unit))
        for name, width in widths.items()
    }


def _downwards(widths: Mapping[str, Width], multiplier: Multiplier) -> Callable[[int, int], int]:
    """Widths rounded down, by way of the smallest one where they are multiples of it."""
    base = min((width.size for width in widths.values() if not width.fixed), default=1)

    def scale(size: int, multiple: int) -> int:
        if size % base:
            return multiplier.scale_down(size, multiple)
        return multiplier.scale_down(base, multiple) * (size // base)

    return scale


def _too_narrow(spec: ModelSpec, policy: Policy) -> InfeasibleError:
    """Why no width meets a budget below what the dense width costs at the density asked for."""
    books = Books.of(rows_of(spec, policy, {}), policy.scope, policy)
    least = ceil(books.fixed + policy.density * books.maskable)
    return InfeasibleError(
        f"budget {policy.budget} is too small for scope {policy.scope_name} at sparsity {decimal_text(policy.sparsity)}: "
        f"it costs {count(least)} MACs at its dense width, {count(books.budget)} are asked for, and widths do not "
        f"shrink. The nearest feasible budget is `budget='{least}'`; masks meet a smaller one with `close='density'`."
    )


def _closing_multiplier(spec: ModelSpec, policy: Policy, at_most: Multiplier) -> Multiplier:
    """The multiplier at which the density asked for closes the budget, to a part in 2**32.

    From above where masks can thin what is too much, from below where a pattern fixes every count.
    """

    assert spec.couplings is not None
    widths = _movable(spec, spec.couplings, policy)

    def excess(squared: Fraction) -> Fraction:
        sizes = _scaled(widths, Multiplier(squared), policy)
        books = Books.of(rows_of(spec, policy, sizes), policy.scope, policy)
        return books.fixed + policy.density * books.maskable - books.budget

    low, high = Fraction(1), at_most.squared
    if policy.budget:
        if excess(low) > 0:
            raise _too_narrow(spec, policy)
        if excess(low) == 0:
            return Multiplier(low)
        while excess(high) < 0 and high < _WIDEST:
            low, high = high, 2 * high
    if excess(high) < 0 or (excess(high) == 0 and policy.whole_patterns):
        return at_most
    for _ in range(32):
        middle = (low + high) / 2
        over = excess(middle) > 0 or (excess(middle) == 0 and not policy.whole_patterns)
        low, high = (low, middle) if over else (middle, high)
    return Multiplier(low if policy.whole_patterns else high)
