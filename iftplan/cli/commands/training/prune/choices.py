"""What `iftplan prune` was asked for, as it is written in its options."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

from iftplan.base.errors import InfeasibleError, InputError
from iftplan.base.units import decimal_text, parse_tolerance
from iftplan.cli.options import split
from iftplan.masks import parse_mask
from iftplan.masks.distributions import Distribution

if TYPE_CHECKING:
    from iftplan.models.spec import ModelSpec
    from iftplan.nn.application.pruning.prune import PruningMethod
    from iftplan.plans.plan import Plan
    from iftplan.plans.request import PlanRequest

METHODS = ("magnitude", "wanda", "sparsegpt")


def is_free(structure: str, budget: str | None) -> bool:
    """Whether neither the structure nor a budget says how many weights stay."""
    return budget is None and (not structure or parse_mask(structure).density is None)


def methods_named(text: str, curve: bool) -> tuple[PruningMethod, ...]:
    """The methods that were named.

    Raises:
        InputError: one is unknown, or there are several for one network.
    """
    names = tuple(dict.fromkeys(split(text)))
    for name in names or ("",):
        if name not in METHODS:
            raise InputError(f"--method {name!r} is unknown. Methods are {', '.join(METHODS)}.")
    if len(names) > 1 and not curve:
        raise InputError(
            f"--method {text!r} names {len(names)} methods, and a network is pruned by one. Name one, or compare them with --curve."
        )
    return cast("tuple[PruningMethod, ...]", names)


@dataclass(frozen=True, slots=True)
class Choices:
    """Options of the command that say how to prune, as they were given."""

    methods: tuple[PruningMethod, ...]
    sparsities: tuple[str, ...]
    curve: bool
    data: str
    samples: int
    seed: int
    tolerance: str
    structure: str
    distribution: Distribution
    keep_dense: tuple[str, ...]
    budget: str | None

    def check(self, plot: str, out: str) -> None:
        """Refuse options that do not go together.

        Raises:
            InputError: says which.
        """
        parse_tolerance(self.tolerance)
        if self.curve and out:
            raise InputError(
                "--out and --save take one pruned network, and --curve makes many. Prune again at the sparsity that you choose, without --curve."
            )
        if plot and not self.curve:
            raise InputError("--plot draws a curve. Add --curve.")
        if len(self.sparsities) > 1 and not self.curve:
            raise InputError(
                f"--sparsity names {len(self.sparsities)} sparsities, and a network is pruned to one. Name one, or measure them all with --curve."
            )

    @property
    def request(self) -> PlanRequest:
        """Plain sparsity without a sparsity."""
        from iftplan.plans.request import PlanRequest

        return PlanRequest(
            family="none",
            distribution=self.distribution,
            keep_dense=self.keep_dense,
            mask=self.structure,
            budget=self.budget,
        )

    def plans(self, spec: ModelSpec) -> list[Plan]:
        """A plan for each sparsity, from the lowest on.

        Raises:
            InfeasibleError: a layer would keep no weight.
        """
        from fractions import Fraction

        from iftplan.base.units import parse_sparsity
        from iftplan.plans.request import make_plan

        given: list[Fraction | None] = [*sorted({*map(parse_sparsity, self.sparsities)})]
        made = [make_plan(spec, replace(self.request, sparsity=sparsity)) for sparsity in given or [None]]
        for plan in made:
            if empty := [layer.name for layer in plan.layers if layer.maskable and not layer.nnz]:
                raise InfeasibleError(
                    f"sparsity {decimal_text(plan.sparsity)} leaves no weight of {', '.join(empty[:3])}, and nothing would pass through. Take a lower one, or keep {'it' if len(empty) == 1 else 'them'} dense with --keep-dense."
                )
        return made
