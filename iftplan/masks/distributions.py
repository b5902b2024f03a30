"""How a budget is spread over layers: uniform, ER and ERK densities in exact arithmetic.

ER and ERK (arXiv 1707.04780, 1911.11134): the density of layer l is `ε·p_l`, with ε closing the budget and
layers that would exceed density 1 held at 1. The budget may be counted in parameters (as the papers do) or
in MACs (as an iso-FLOP plan must).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from math import prod

from iftplan.base.errors import InfeasibleError


class Distribution(StrEnum):
    """Rule by which density is spread over layers."""

    UNIFORM = "uniform"
    ER = "er"
    ERK = "erk"


@dataclass(frozen=True, slots=True)
class DensityLayer:
    """Maskable layer as a distribution sees it: shape and cost.

    Attributes:
        name: for messages.
        shape: (n_in, n_out, *kernel) of its weight.
        cost: what full density costs, in the budget's unit.
    """

    name: str
    shape: tuple[int, ...]
    cost: int


def probability(shape: tuple[int, ...], distribution: Distribution, power: int = 1) -> Fraction:
    """Density p_l of a layer up to the common factor ε (arXiv 1707.04780, 1911.11134).

    It is 1 for uniform, `(n_in+n_out)/(n_in·n_out)` for ER, and has the kernel in sum and product for
    ERK.

    Args:
        shape: (n_in, n_out, *kernel) of the weight.
        distribution: the rule.
        power: exponent of p_l; 1 as published.
    """
    match distribution:
        case Distribution.UNIFORM:
            return Fraction(1)
        case Distribution.ER:
            return Fraction(sum(shape[:2]), prod(shape[:2])) ** power
        case Distribution.ERK:
            return Fraction(sum(shape), prod(shape)) ** power


def densities(
    shares: Sequence[DensityLayer], budget: Fraction, distribution: Distribution, power: int = 1
) -> tuple[Fraction, ...]:
    """Densities with `Σ density·cost = budget` exactly, none above 1.

    Args:
        shares: the maskable layers.
        budget: what all of them together may cost, in the unit of their costs.
        distribution: the rule by which densities differ.
        power: exponent of p_l; 1 as published.

    Raises:
        InfeasibleError: the budget is not positive, or exceeds what all layers cost at density 1.

    Example:
        >>> shares = [DensityLayer("a", (2, 4), 8), DensityLayer("b", (3, 6), 18)]
        >>> densities(shares, Fraction(13), Distribution.ERK)
        (Fraction(13, 20), Fraction(13, 30))
    """
    if not shares:
        return ()
    total = sum(share.cost for share in shares)
    if not 0 < budget <= total:
        largest = max(shares, key=lambda share: share.cost)
        raise InfeasibleError(
            f"a budget of {float(budget):.6g} cannot be spread over the maskable layers: it must be above 0 "
            f"and at most {total}, their cost at density 1 (the largest is {largest.name})."
        )
    # All densities follow from one number: they are ε·p_l, and ε is what the layers below density 1 have left
    # of the budget. A layer that ε·p_l would take above 1 keeps all of its weights and no more, which leaves
    # the others more: ε grows, and may take another layer above 1. So only the layers of the largest p_l
    # become dense in a round, all that tie together, lest the answer depend on their order.
    weights = [probability(share.shape, distribution, power) for share in shares]
    dense: set[int] = set()
    while True:
        free = [i for i in range(len(shares)) if i not in dense]
        if not free:
            return (Fraction(1),) * len(shares)
        left = budget - sum(shares[i].cost for i in dense)
        epsilon = left / sum(weights[i] * shares[i].cost for i in free)
        if epsilon < 0:
            raise InfeasibleError(
                f"{distribution} leaves some layers dense ({', '.join(shares[i].name for i in sorted(dense))}), and "
                "those alone cost more than the budget. Choose a lower sparsity or the uniform distribution."
            )
        top = max(weights[i] for i in free)
        if epsilon * top <= 1:
            return tuple(Fraction(1) if i in dense else epsilon * weights[i] for i in range(len(shares)))
        dense |= {i for i in free if weights[i] == top}


def parameter_budget(
    shares: Sequence[DensityLayer], sparsity: Fraction, *, floor_zeros: bool = False
) -> Fraction:
    """Number of weights that stay at a sparsity, a fraction of a weight included.

    Args:
        shares: the maskable layers, whose costs are numbers of weights.
        sparsity: the fraction of zeros, in [0, 1).
        floor_zeros: whether each layer's zeros are rounded down first, as in jaxpruner.
    """
    if floor_zeros:
        return Fraction(sum(share.cost - int(sparsity * share.cost) for share in shares))
    return (1 - sparsity) * sum(share.cost for share in shares)
