"""Families chosen by what a plan is for: every combination of the alternatives is planned, and the best is kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from iftplan.base.errors import InfeasibleError
from iftplan.base.units import bits, count
from iftplan.plans.plan import Plan, Role

Aim = Literal["search-space", "parameters", "wallclock"]

MOST: Final = 64
"""How many combinations of families are planned at most."""

_SHOWN: Final = 8
"""How many of them a note names."""


@dataclass(frozen=True, slots=True)
class Merit:
    """Merit of a plan under an aim: the lowest value is best.

    Attributes:
        value: the aim's number; negative where more is better.
        missing: transformed layers that the number leaves out.
    """

    value: float
    missing: int = 0

    def shown(self, aim: Aim) -> str:
        """The value with its unit."""
        match aim:
            case "search-space":
                return bits(-self.value)
            case "parameters":
                return f"{count(round(self.value))} parameters"
            case "wallclock":
                return f"{self.value * 1e3:.3f} ms"

    @staticmethod
    def of(plan: Plan, aim: Aim) -> Merit:
        """Merit of a plan.

        Args:
            plan: with estimated times, where the aim is time.
            aim: what is compared.
        """
        match aim:
            case "search-space":
                return Merit(-(plan.cardinality.log2_masks or 0.0))
            case "parameters":
                return Merit(sum(layer.capacity + layer.dense_weights for layer in plan.layers))
            case "wallclock":
                assert plan.wallclock is not None
                transformed = {layer.name for layer in plan.layers if layer.role is Role.TRANSFORMED}
                missing = sum(name in transformed for name, _ in plan.wallclock.unpriced)
                return Merit(plan.wallclock.seconds, missing)


def best_plan(plans: Mapping[str, Callable[[], Plan]], aim: Aim) -> Plan:
    """The plan that serves an aim best, with a note on what it was compared with and on what chance gives; the first of equals.

    For time, plans whose layers all have a price come before plans with layers that have none.

    Args:
        plans: what each is called, and what makes it.
        aim: "search-space" for the most masks, "parameters" for the fewest weights, masked ones among them,
            "wallclock" for the shortest estimated time.

    Raises:
        InfeasibleError: none can be made; says why not, for the first.
    """
    made: dict[str, tuple[Plan, Merit]] = {}
    refused: dict[str, InfeasibleError] = {}
    for name, make in plans.items():
        try:
            plan = make()
        except InfeasibleError as error:
            refused[name] = error
        else:
            made[name] = plan, Merit.of(plan, aim)
    if not made:
        first, why = next(iter(refused.items()))
        raise InfeasibleError(f"none of {len(refused)} choices of families can be planned; {first}: {why}")
    ranked = sorted(made, key=lambda name: (made[name][1].missing, made[name][1].value))
    told = [f"{name} ({_told(made[name][1], aim)})" for name in ranked]
    told += [f"{name} (infeasible)" for name in refused]
    more = f" and {len(told) - _SHOWN} more" if len(told) > _SHOWN else ""
    plan, _ = made[ranked[0]]
    best = f"best first: {'; '.join(told[:_SHOWN])}{more}"
    chance = _chance([merit for _, merit in made.values()], aim)
    note = f"families chosen by {aim} among {len(told)}, {best}{chance}"
    return replace(plan, notes=(note, *plan.notes))


def _chance(merits: Sequence[Merit], aim: Aim) -> str:
    """What a choice at random has on average, among those that are known as fully as the best."""
    fewest = min(merit.missing for merit in merits)
    values = [merit.value for merit in merits if merit.missing == fewest]
    if len(values) < 2:
        return ""
    mean = sum(values) / len(values)
    times = f", and the best {min(values) / mean:.3g} times that" if mean else ""
    return f"; a choice at random has {Merit(mean).shown(aim)} on average{times}"


def _told(merit: Merit, aim: Aim) -> str:
    if not merit.missing:
        return merit.shown(aim)
    return f"{merit.shown(aim)}, without {merit.missing} layer{'s' * (merit.missing > 1)} that the profile has no price for"
