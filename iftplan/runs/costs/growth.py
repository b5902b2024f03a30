"""Training runs whose network grows: when it grows, so that the MACs of all steps close a budget to the step.

A step at widths w costs 3·f(w) per sample, as of any network. A growth step by GradMax costs a step before it and a step
behind it, on a batch, and the products that make the matrix M of gradients (`iftplan.nn.grow_`); its singular value
decomposition has no count of multiply-accumulates and is not in it. Replicas cost nothing.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate, pairwise
from math import ceil, floor, prod
from typing import Literal

from iftplan.base.errors import InfeasibleError, InputError
from iftplan.base.units import count
from iftplan.models.polynomial import Polynomial
from iftplan.models.spec import Couplings


def forward_macs(couplings: Couplings, sizes: Mapping[str, int]) -> int:
    """MACs of a forward pass of the traced inputs at these widths.

    Args:
        couplings: of the model.
        sizes: symbol → size; widths that are left out are as they were traced.
    """
    at = {name: sizes.get(name, width.size) for name, width in couplings.widths.items()}
    return sum(p.at(at) for p in (*couplings.weight_macs.values(), *couplings.product_macs.values()))


def gradmax_macs(couplings: Couplings, before: Mapping[str, int], after: Mapping[str, int]) -> int:
    """MACs of a growth step by GradMax on the traced inputs, without the singular value decomposition.

    Args:
        couplings: of the model.
        before: widths of the model as it is.
        after: its widths behind the step.

    Raises:
        InfeasibleError: a width is not written by one layer and read by one.
    """
    at = {name: before.get(name, width.size) for name, width in couplings.widths.items()}
    macs = 3 * forward_macs(couplings, before) + 3 * forward_macs(couplings, {**before, **after})
    for width in (name for name, size in after.items() if size != at.get(name)):
        shapes = {name: couplings.shapes[name] for name in couplings.weight_macs}
        own = Polynomial.symbol(width)
        writing = [s for s in shapes.values() if s[0] == own]
        reading = [name for name, s in shapes.items() if s[1:2] == (own,)]
        if len(writing) != 1 or len(reading) != 1:
            raise InfeasibleError(
                f"width {width} is written by {len(writing)} layers and read by {len(reading)}, and GradMax grows widths "
                "that one layer writes and one reads. Let it grow by replicas."
            )
        windows = prod(n.at(at) for n in writing[0][1:])
        macs += couplings.weight_macs[reading[0]].at(at) // at[width] * windows
    return macs


@dataclass(frozen=True, slots=True)
class Stage:
    """Steps of a run between two growth steps.

    Attributes:
        steps: how many.
        macs: MACs of each.
        growth: MACs of the growth step before the first of them.
    """

    steps: int
    macs: int
    growth: int = 0

    @property
    def total(self) -> int:
        """MACs of all its steps and of the growth step before."""
        return self.steps * self.macs + self.growth


@dataclass(frozen=True, slots=True)
class GrowthSchedule:
    """Steps at which a network grows, and the cost of its training.

    Attributes:
        stages: in their order.
        budget: MACs that the run may cost.

    Example:
        >>> schedule = within_steps((10, 20, 40), 3000, steps=100)
        >>> schedule.begins, schedule.macs
        ((0, 20, 40), 3000)
    """

    stages: tuple[Stage, ...]
    budget: int

    @property
    def steps(self) -> int:
        """Number of steps of the run."""
        return sum(stage.steps for stage in self.stages)

    @property
    def begins(self) -> tuple[int, ...]:
        """First step of each stage; the network grows before it."""
        return tuple(accumulate((stage.steps for stage in self.stages[:-1]), initial=0))

    @property
    def macs(self) -> int:
        """MACs of the whole run, growth steps included."""
        return sum(stage.total for stage in self.stages)

    @property
    def left(self) -> int:
        """MACs of the budget that are not spent."""
        return self.budget - self.macs

    def stage_at(self, step: int) -> int:
        """Number of the stage that a step is in, both counted from 0."""
        return bisect_right(self.begins, step) - 1

    def macs_after(self, steps: int) -> int:
        """MACs of so many first steps, with the growth steps before them."""
        spent = 0
        for begin, stage in zip(self.begins, self.stages, strict=True):
            if steps > begin:
                spent += stage.growth + min(steps - begin, stage.steps) * stage.macs
        return spent


def growth_costs(
    couplings: Couplings,
    widths: Sequence[Mapping[str, int]],
    samples: int = 1,
    how: Literal["gradmax", "random", "replicas"] = "gradmax",
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """MACs of a step in each stage, and of each growth step.

    Args:
        couplings: of the model, traced on one sample.
        widths: sizes of the widths that grow, of each stage.
        samples: batch size, of growth steps too.
        how: what new neurons are; only GradMax's cost anything.

    Raises:
        InfeasibleError: GradMax cannot grow one of the widths.
    """
    steps = tuple(3 * samples * forward_macs(couplings, sizes) for sizes in widths)
    if how != "gradmax":
        return steps, (0,) * (len(widths) - 1)
    return steps, tuple(samples * gradmax_macs(couplings, a, b) for a, b in pairwise(widths))


def within_steps(
    costs: Sequence[int],
    budget: int,
    steps: int,
    *,
    growths: Sequence[int] = (),
    shares: Sequence[int | Fraction] = (),
) -> GrowthSchedule:
    """Schedule of a run of so many steps that costs the budget: the less there is, the later the network grows.

    No growth step could come one step earlier within the budget.

    Args:
        costs: MACs of a step in each stage, rising.
        budget: MACs of the run.
        steps: of the whole run.
        growths: MACs of each growth step; 0 if left out.
        shares: lengths of all stages but the last, in proportion; equal if left out.

    Raises:
        InfeasibleError: even the latest growth costs more, or the widest network from the start costs less.
        InputError: the costs do not rise, or the numbers of costs, growth steps and shares do not match.
    """
    growths, shares = _checked(costs, growths, shares, len(costs) - 1)
    rises = [b - a for a, b in pairwise(costs)]
    grown = len(rises)
    needed = steps * costs[-1] + sum(growths) - budget  # what later growth has to save
    latest = [steps - grown + i for i in range(grown)]
    _within(costs, budget, steps, sum(growths), _saved(latest, rises), grown)
    parts = [part / sum(shares) for part in accumulate(shares)]

    def begins(last: int) -> list[int]:
        found: list[int] = []
        for i, part in enumerate(parts):
            earliest = found[-1] + 1 if found else 1
            found.append(min(max(ceil(part * last), earliest), latest[i]))
        return found

    first = _smallest(lambda last: _saved(begins(last), rises) >= needed, grown, ceil(steps / parts[0]))
    made = begins(first)
    while earlier := [
        i
        for i, rise in enumerate(rises)
        if made[i] - 1 > (made[i - 1] if i else 0) and _saved(made, rises) - rise >= needed
    ]:
        made[max(earlier, key=lambda i: rises[i])] -= 1
    lengths = [b - a for a, b in pairwise([0, *made, steps])]
    return _schedule(lengths, costs, growths, budget)


def within_budget(
    costs: Sequence[int],
    budget: int,
    *,
    growths: Sequence[int] = (),
    shares: Sequence[int | Fraction] = (),
) -> GrowthSchedule:
    """Schedule whose stages have lengths in proportion, and as many steps as the budget pays.

    No step more of any stage would be within the budget.

    Args:
        costs: MACs of a step in each stage.
        budget: MACs of the run.
        growths: MACs of each growth step; 0 if left out.
        shares: lengths of the stages, in proportion; equal if left out.

    Raises:
        InfeasibleError: the budget does not pay one step of each stage.
        InputError: the numbers of costs, growth steps and shares do not match, or one is not positive.
    """
    growths, shares = _checked(costs, growths, shares, len(costs))
    paid = budget - sum(growths)
    if paid < sum(costs):
        raise InfeasibleError(
            f"a budget of {count(budget)} MACs does not pay one step at each of {len(costs)} widths and the growth steps "
            f"between them; the smallest budget is {count(sum(costs) + sum(growths))} MACs."
        )
    parts = [Fraction(share) / sum(shares) for share in shares]

    def lengths(total: int) -> list[int]:
        return [max(1, floor(part * total)) for part in parts]

    def exceeds(total: int) -> bool:
        return _spent(lengths(total), costs) > paid

    found = lengths(_smallest(exceeds, 1, 2 * len(costs) + 2 * ceil(paid / min(costs) / min(parts))) - 1)
    for i in sorted(range(len(costs)), key=lambda i: -costs[i]):
        found[i] += (paid - _spent(found, costs)) // costs[i]
    return _schedule(found, costs, growths, budget)


def _checked(
    costs: Sequence[int], growths: Sequence[int], shares: Sequence[int | Fraction], stages: int
) -> tuple[Sequence[int], Sequence[Fraction]]:
    growths, shares = growths or (0,) * (len(costs) - 1), shares or (1,) * stages
    if len(costs) < 2 or len(growths) != len(costs) - 1 or len(shares) != stages:
        raise InputError(
            f"{len(costs)} costs of a step, {len(growths)} of growth steps and {len(shares)} shares do not make a schedule; "
            f"two stages or more have one growth step fewer, and here {stages} shares."
        )
    if min(costs) < 1 or min(growths) < 0 or min(shares) <= 0:
        raise InputError(
            "costs of steps and shares of a growth schedule have to be positive, and costs of growth not negative."
        )
    if stages < len(costs) and any(b <= a for a, b in pairwise(costs)):
        raise InputError(
            f"costs of a step have to rise from stage to stage, not {', '.join(map(str, costs))}."
        )
    return growths, [Fraction(share) for share in shares]


def _within(costs: Sequence[int], budget: int, steps: int, growths: int, saved: int, grown: int) -> None:
    if steps <= grown:
        raise InfeasibleError(
            f"{steps} steps are too few to grow {grown} times between them; the fewest are {grown + 1}."
        )
    highest = steps * costs[-1] + growths - _saved(range(1, grown + 1), [b - a for a, b in pairwise(costs)])
    lowest = steps * costs[-1] + growths - saved
    if budget < lowest:
        raise InfeasibleError(
            f"{steps} steps cost {count(lowest)} MACs even if the network grows at the very end, more than the budget of "
            f"{count(budget)}. Train fewer steps, or begin narrower."
        )
    if budget - highest >= costs[-1]:
        raise InfeasibleError(
            f"{steps} steps cost {count(highest)} MACs even if the network grows at the very beginning, less than the budget "
            f"of {count(budget)}. Train more steps, or grow wider."
        )


def _saved(begins: Sequence[int], rises: Sequence[int]) -> int:
    return sum(begin * rise for begin, rise in zip(begins, rises, strict=True))


def _spent(lengths: Sequence[int], costs: Sequence[int]) -> int:
    return sum(length * cost for length, cost in zip(lengths, costs, strict=True))


def _smallest(holds: Callable[[int], bool], low: int, high: int) -> int:
    """The smallest number from `low` to `high` at which something holds that holds from there on."""
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low


def _schedule(
    lengths: Sequence[int], costs: Sequence[int], growths: Sequence[int], budget: int
) -> GrowthSchedule:
    made = zip(lengths, costs, (0, *growths), strict=True)
    return GrowthSchedule(tuple(Stage(n, cost, growth) for n, cost, growth in made), budget)
