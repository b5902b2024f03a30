"""How masks change over training: the algorithms of `iftplan.nn` that train in JAX too, with the same defaults.

An algorithm says when masks change and, before training begins, how many units every update drops or keeps: these
are whole numbers out of exact arithmetic, so that a compiled step only looks them up.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import InitVar, dataclass, field, replace
from typing import ClassVar, Final, Literal, Self

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from iftplan.base.arguments import one_of
from iftplan.base.errors import InputError
from iftplan.jaxnn.masking.exchange import drop_grow
from iftplan.jaxnn.masking.top_k import excluding, largest
from iftplan.jaxnn.masking.views import View
from iftplan.runs.schedules import Cosine, Schedule, Updates, left_at, whole_part

Order = Literal["after", "replace"]


@dataclass(frozen=True, slots=True)
class UnitScores:
    """Scores that an update of one weight goes by, in the rows of its structure: (rows, units).

    Attributes:
        magnitude: |θ|, summed over a unit.
        mask: which units are kept now.
        gradient: |g| of the dense gradient, summed over a unit.
        key: of the random numbers of this weight at this step.
    """

    magnitude: Array
    mask: Array
    gradient: Array
    key: Array


class Algorithm(ABC):
    """Algorithm that changes masks over training.

    Attributes:
        name: that `with_masks` knows it by.
        order: whether an update follows the optimizer's step of the same iteration, or takes its place.
        starts_dense: whether training begins with every weight; masks then say how many to keep in the end.
        straight: whether a dense weight is behind each masked one, which the optimizer moves.
        looks: whether updates look at the gradients of weights that are not there.
        keep_values: whether a weight that is dropped and grown back in one update keeps its value.
    """

    __slots__ = ()

    name: ClassVar[str]
    order: Order = "after"
    starts_dense: ClassVar[bool] = False
    straight: ClassVar[bool] = False
    looks: ClassVar[bool] = False
    keep_values: bool = True

    @property
    def needs_length(self) -> bool:
        """Whether the schedule is a fraction of training, whose length has to be given."""
        return False

    def over(self, steps: int) -> Self:
        """The same algorithm in a training of so many steps."""
        return self

    def due(self) -> Sequence[int]:
        """Steps at which masks change, counted from 0; an algorithm without a schedule has none."""
        return ()

    def counts(self, view: View) -> Sequence[int]:
        """Number for each step that is due: units of that weight that an update drops, or that each row keeps."""
        return ()

    @abstractmethod
    def update(self, view: View, scores: UnitScores, count: ArrayLike) -> tuple[Array, Array]:
        """New mask of one weight and what grew in it, both boolean (rows, units).

        Args:
            view: the weight.
            scores: what is looked at.
            count: of this update, from `counts`.
        """


@dataclass(frozen=True, slots=True)
class Static(Algorithm):
    """Algorithm that never updates masks."""

    name = "static"

    def update(self, view: View, scores: UnitScores, count: ArrayLike) -> tuple[Array, Array]:
        """The present mask.

        Args:
            view: the weight.
            scores: what is looked at.
            count: looked at by no such method.
        """
        return scores.mask, scores.mask & False


@dataclass(frozen=True, slots=True)
class Scheduled(Algorithm):
    """Algorithm that changes masks every so often.

    Attributes:
        updates: when; by default every 100 steps until three quarters of training.
        interval: ΔT of the updates, in steps.
        begin: of the updates: a step, or a fraction of training as a float.
        end: of the updates: a step, or a fraction of training as a float.
    """

    updates: Updates = Updates(end=0.75)  # noqa: RUF009  (a frozen value)
    interval: InitVar[int | None] = field(default=None, kw_only=True)
    begin: InitVar[int | float | None] = field(default=None, kw_only=True)
    end: InitVar[int | float | None] = field(default=None, kw_only=True)

    def __post_init__(self, interval: int | None, begin: float | None, end: float | None) -> None:
        object.__setattr__(self, "updates", self.updates.but(interval, begin, end))

    @property
    def needs_length(self) -> bool:
        """Whether updates begin or end at a fraction of training."""
        return self.updates.needs_length

    def over(self, steps: int) -> Self:
        """The same algorithm in a training of so many steps."""
        return replace(self, updates=self.updates.over(steps))

    def due(self) -> Sequence[int]:
        """Steps at which masks change: every ΔT steps of the schedule."""
        updates = self.updates
        candidates = range(updates.first - updates.count_from, updates.last + 1, updates.interval)
        return [step for step in candidates if step >= 0 and updates.due(step)]


@dataclass(frozen=True, slots=True)
class Exchange(Scheduled):
    """Algorithm that drops a part f_t of the active weights by magnitude and grows as many.

    Attributes:
        fraction: f_t over the schedule; a cosine from α = .3 by default.
        order: whether an update follows the optimizer's step or takes its place (RigL's paper).
        regrow: whether what was just dropped may grow back at once.
        keep_values: whether a weight dropped and grown back in one update keeps its value; else it restarts at 0.
    """

    fraction: Schedule = Cosine()  # noqa: RUF009  (a frozen value)
    order: Order = "after"
    regrow: bool = True
    keep_values: bool = True

    def counts(self, view: View) -> Sequence[int]:
        """Number of units that each update drops: ⌊active·f_t⌋."""
        (rows, _), (kept, short) = view.rows.shape, view.kept
        active = rows * kept - short
        return [whole_part(active, self.fraction.at(self.updates.progress(step))) for step in self.due()]

    @abstractmethod
    def growth(self, scores: UnitScores) -> Array:
        """Scores by which units grow, (rows, units)."""

    def update(self, view: View, scores: UnitScores, count: ArrayLike) -> tuple[Array, Array]:
        """New mask: drop by |θ|, grow by the method's scores.

        Args:
            view: the weight.
            scores: what is looked at.
            count: units that are dropped.
        """
        return drop_grow(scores.magnitude, scores.mask, self.growth(scores), count, regrow=self.regrow)


@dataclass(frozen=True, slots=True)
class SET(Exchange):
    """Sparse evolutionary training (arXiv 1707.04780), which grows at random; only what was inactive can grow."""

    regrow: bool = False

    name = "set"

    def growth(self, scores: UnitScores) -> Array:
        """Uniform random numbers, the same on every device and for every sharding."""
        return jax.random.uniform(scores.key, scores.mask.shape)


@dataclass(frozen=True, slots=True)
class RigL(Exchange):
    """Rigged lottery (arXiv 1911.11134), which grows by |g| of the dense gradient."""

    name = "rigl"
    looks = True

    def growth(self, scores: UnitScores) -> Array:
        """|g| of the dense gradient."""
        return scores.gradient


@dataclass(frozen=True, slots=True)
class Gradual(Scheduled):
    """Gradual magnitude pruning (arXiv 1710.01878): each update keeps the largest |θ|; density falls along a cubic.

    The last update is at the schedule's end and leaves the number of weights that the plan has.

    Attributes:
        order: whether an update follows the optimizer's step or takes its place.
    """

    order: Order = "after"

    name = "gradual"
    starts_dense = True

    def due(self) -> Sequence[int]:
        """Steps at which masks change: every ΔT steps of the schedule, and its end."""
        return sorted({*super(Gradual, self).due(), self.updates.last})

    def counts(self, view: View) -> Sequence[int]:
        """Number of units that each row keeps after each update, exactly the plan's after the last."""
        units, (target, _) = view.rows.shape[1], view.kept
        return [left_at(self.updates, step, units, target) for step in self.due()]

    def update(self, view: View, scores: UnitScores, count: ArrayLike) -> tuple[Array, Array]:
        """New mask of the largest |θ|, as many as the cubic schedule allows.

        Args:
            view: the weight.
            scores: what is looked at.
            count: units that each row keeps.
        """
        ranked = excluding(scores.magnitude, ~scores.mask)
        target, short = view.kept
        at_target = jnp.where(jnp.asarray(count) == target, short, 0)
        chosen = largest(ranked, count, at_target, view.rows.experts) & scores.mask
        return chosen, chosen & False


class StraightThrough(Algorithm):
    """Base of methods with a dense weight θ behind each masked one: the largest |θ| are kept.

    Attributes:
        refresh: number of steps between two choices of masks.
        pull: λ of λ·(1-m)⊙θ, which is added to the gradient.
    """

    __slots__ = ()

    refresh: int
    pull: float = 0.0
    starts_dense = True
    straight = True
    looks = True

    def update(self, view: View, scores: UnitScores, count: ArrayLike) -> tuple[Array, Array]:
        """New mask of the largest |θ| that the structure lets stay.

        Args:
            view: the weight.
            scores: what is looked at.
            count: looked at by no such method.
        """
        kept, short = view.kept
        chosen = largest(scores.magnitude, kept, short, view.rows.experts)
        return chosen, chosen & False


@dataclass(frozen=True, slots=True)
class STE(StraightThrough):
    """Straight-through estimation (arXiv 1308.3432): forward θ⊙m(θ), gradient g as if there were no mask."""

    refresh: int = 1

    name = "ste"


@dataclass(frozen=True, slots=True)
class SRSTE(StraightThrough):
    """Straight-through estimation with a pull towards zero (arXiv 2102.04010): gradient g + λ·(1-m)⊙θ.

    Attributes:
        pull: λ; the paper's is 2e-4.
        refresh: number of steps between two choices of masks; 1 in the paper.
    """

    pull: float = 2e-4
    refresh: int = 1

    name = "srste"


ALGORITHMS: Final = {kind.name: kind for kind in (Static, SET, RigL, Gradual, STE, SRSTE)}
"""Algorithm by name."""


def for_training(algorithm: Algorithm | str, steps: int | None) -> Algorithm:
    """Algorithm as it runs in a training: by its name if that was given, and with fractions of training as steps.

    Args:
        algorithm: a value, or a name in any case.
        steps: optimizer steps of the whole training; None where they are not known.

    Raises:
        InputError: no such algorithm, or one that needs to know the length of training.
    """
    found = (
        ALGORITHMS[one_of("algorithm", algorithm, list(ALGORITHMS))]()
        if isinstance(algorithm, str)
        else algorithm
    )
    if not found.needs_length:
        return found
    if steps is None:
        raise InputError(
            f"{type(found).__name__} changes masks until a fraction of training, so it has to know how long that is; give `steps`, as in with_masks(optimizer, masks, {type(found).__name__}(), steps=10_000), or an end in steps, {type(found).__name__}(end=7500)."
        )
    return found.over(steps)
