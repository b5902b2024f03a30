"""Searches over plans in two objectives, both better when lower, and the random search that any must beat."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any, Literal

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from iftplan.base.units import decimal_text
from iftplan.families.builtin import FAMILIES
from iftplan.families.family import Family
from iftplan.models.spec import ModelSpec
from iftplan.runs.results.pareto import Point, Sense, Senses, frontier
from iftplan.runs.settings import PlanConfig
from iftplan.runs.sweeps.grid import Grid, GridPoint, planned_rows

SamplerName = Literal["tpe", "nsga2", "random"]
_PLACES = 4
"""Decimals of a sparsity: finer ones move no weight that matters, and are long to read."""


@dataclass(frozen=True, slots=True)
class Space:
    """Choices of a search: names for each setting, and a range of sparsities.

    Attributes:
        choices: "model", "transform", "distribution", "mask" and "method" → what there is.
        least: sparsity.
        most: sparsity.
        base: all else that is asked of a plan.
    """

    choices: Mapping[str, tuple[str, ...]]
    least: Fraction
    most: Fraction
    base: PlanConfig = field(default_factory=PlanConfig)

    def distributions(self) -> dict[str, BaseDistribution]:
        """Choices in Optuna's form, by name."""
        sparsity = FloatDistribution(float(self.least), float(self.most))
        return {"sparsity": sparsity, **{k: CategoricalDistribution(v) for k, v in self.choices.items()}}

    def plan(self, params: Mapping[str, Any]) -> PlanConfig:
        """Plan settings that a choice asks for.

        Raises:
            KeyError: something was not chosen.
        """
        sparsity = Fraction(f"{params['sparsity']:.{_PLACES}f}")
        sparsity = min(max(sparsity, self.least), self.most)  # rounding stays inside
        asked = {k: params[k] for k in ("model", "transform", "distribution", "mask")}
        return replace(self.base, file="", sparsity=decimal_text(sparsity), **asked)


def space_of(grid: Grid, methods: Sequence[str] = ("static",)) -> Space:
    """Space of a grid's choices, with all sparsities between its least and its most."""
    choices = {
        "model": grid.models,
        "transform": grid.transforms,
        "distribution": grid.distributions,
        "mask": grid.masks,
        "method": tuple(methods),
    }
    return Space(choices, min(grid.sparsities), max(grid.sparsities), grid.base)


def asking(space: Space, sampler: SamplerName, seed: int) -> Callable[[optuna.Study], optuna.Trial]:
    """Function that makes a study's next trial.

    Its random numbers follow from the seed and the number of choices made before, so that neither a restart nor
    another worker draws the same again; what was killed while it was chosen does not count.

    Args:
        space: of the choices.
        sampler: "tpe", "nsga2" or "random".
        seed: of the sampler.
    """
    distributions = space.distributions()

    def ask(study: optuna.Study) -> optuna.Trial:
        made = sum(trial.params.keys() == distributions.keys() for trial in study.get_trials(deepcopy=False))
        study.sampler = _sampler(sampler, seed * 2**16 + made)
        return study.ask(distributions)

    return ask


def _sampler(name: SamplerName, seed: int) -> optuna.samplers.BaseSampler:
    match name:
        case "tpe":
            # Which sparsity is good depends on the family; one choice at a time, it lost to chance at 30 trials.
            return optuna.samplers.TPESampler(seed=seed, multivariate=True)
        case "nsga2":
            return optuna.samplers.NSGAIISampler(seed=seed, population_size=20)
        case "random":
            return optuna.samplers.RandomSampler(seed=seed)


def hypervolume(points: Sequence[tuple[float, float]], reference: tuple[float, float]) -> float:
    """The area that points dominate, as far as a reference; both objectives are better when lower.

    Example:
        >>> hypervolume([(1, 3), (2, 1), (2, 2)], (4, 4))
        7.0
    """
    inside = [Point(*p) for p in points if p[0] < reference[0] and p[1] < reference[1]]
    area, height = 0.0, reference[1]
    for i in frontier(inside, Senses(Sense.LOWER, Sense.LOWER)):
        area += (reference[0] - inside[i].x) * (height - inside[i].y)
        height = inside[i].y
    return area


def shares(found: Mapping[str, Sequence[tuple[float, float]]]) -> dict[str, float]:
    """Hypervolumes of searches side by side, as parts of the box that holds all their points.

    The reference is the worst of each objective that any of them met, so that no unit decides.
    """
    both = [point for points in found.values() for point in points]
    if not both:
        return dict.fromkeys(found, 0.0)
    (left, right), (low, high) = ((min(xs), max(xs)) for xs in zip(*both, strict=True))
    box = (right - left) * (high - low)
    return {name: hypervolume(points, (right, high)) / box if box else 0.0 for name, points in found.items()}


def planned_search(
    space: Space,
    sampler: SamplerName,
    trials: int,
    specs: Mapping[str, ModelSpec],
    families: Mapping[str, Family] = FAMILIES,
    *,
    seed: int = 0,
) -> list[GridPoint]:
    """Search plans for many masks at few MACs; one row for each trial.

    Args:
        space: what is chosen from.
        sampler: what chooses.
        trials: how many.
        specs: each model as it was read.
        families: by name.
        seed: of the sampler.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # what happens is for us to say
    study = optuna.create_study(directions=["minimize", "minimize"])
    ask, rows = asking(space, sampler, seed), []
    for _ in range(trials):
        trial = ask(study)
        (row,) = planned_rows(specs, [space.plan(trial.params)], families)
        rows.append(row)
        values = planned_objectives(row)
        study.tell(trial, values, None if values else optuna.trial.TrialState.FAIL)
    return rows


def planned_objectives(row: GridPoint) -> tuple[float, float] | None:
    """Objectives of a search over plans, to be minimised: minus the bits that name a mask, forward MACs."""
    return None if row.macs is None or row.log2_masks is None else (-row.log2_masks, float(row.macs))


def trained_objectives(row: GridPoint) -> tuple[float, float] | None:
    """Objectives of a search over runs, both to be minimised: the metric, and MACs of the training run.

    Accuracy counts with its sign turned.
    """
    if row.value is None or row.train_macs is None:
        return None
    return (-row.value if row.metric == "accuracy" else row.value), float(row.train_macs)
