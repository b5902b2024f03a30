"""What every sparse-training algorithm answers; each is a frozen value in a file of its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from dataclasses import InitVar, dataclass, field, replace
from enum import StrEnum
from typing import ClassVar, Protocol, Self, runtime_checkable

from iftplan.base.arguments import check_names
from iftplan.masks import MaskStructure
from iftplan.nn.masking.layer import Change, Layer
from iftplan.runs.schedules import Updates
from iftplan.runs.settings import MethodConfig


class Order(StrEnum):
    """Order of a mask update and the optimizer's step of the same iteration.

    REPLACE: the update takes its place (RigL, arXiv 1911.11134, algorithm 1).
    AFTER: the step is taken first, on the old mask (Sparse-IFT, Cerebras).
    """

    REPLACE = "replace"
    AFTER = "after"


class Scores(StrEnum):
    """Scores that an update looks at beside the weights, which also say how they are trained until then.

    GRADIENT: |g| of the dense gradient.
    AVERAGE: |m| of an average m of the dense gradients of all steps.
    KEPT: |g| of the weights that the mask keeps, 0 elsewhere.
    SALIENCY: |θ·g|.
    RECALLED: |θ·g| with the weights that training began with, which come back when a mask keeps them again.
    CURVATURE: θ·Hg, signed, by a second backward pass.
    SYNAPTIC_FLOW: |θ·∂R/∂θ|, by passes without data.
    """

    NONE = "none"
    GRADIENT = "gradient"
    AVERAGE = "average"
    KEPT = "kept"
    SALIENCY = "saliency"
    RECALLED = "recalled"
    CURVATURE = "curvature"
    SYNAPTIC_FLOW = "synaptic-flow"

    @property
    def of_gradients(self) -> bool:
        """Whether the scores are of gradients alone; else they are of weights and gradients together."""
        return self in (Scores.GRADIENT, Scores.AVERAGE, Scores.KEPT)


class Algorithm(Protocol):
    """Algorithm that changes masks over training.

    Attributes:
        order: whether an update replaces the optimizer's step or follows it.
        scores: whether updates need the dense gradient, and for what.
        starts_dense: whether training begins with every weight; the masks then say how many weights to keep in the end.
        keep_values: whether a weight that is dropped and grown back in one update keeps its value (google/rigl);
            else it restarts at 0, as all others that grow do.
        crosses_layers: whether one layer can gain weights that another loses, which only unstructured masks allow.
    """

    @property
    def order(self) -> Order: ...  # noqa: D102  (above)
    @property
    def scores(self) -> Scores: ...  # noqa: D102
    @property
    def starts_dense(self) -> bool: ...  # noqa: D102
    @property
    def keep_values(self) -> bool: ...  # noqa: D102
    @property
    def crosses_layers(self) -> bool: ...  # noqa: D102

    def due(self, step: int) -> bool:
        """Whether masks change at that step; steps count from 0."""

    def update(self, layers: Sequence[Layer], step: int) -> list[Change]:
        """New masks in the layers' order; nothing is changed in place."""


@runtime_checkable
class LatentAlgorithm(Algorithm, Protocol):
    """An algorithm that trains a dense weight θ behind each masked one (`iftplan.nn.masking.regimes.latents`).

    Its `due(t)` says whether step t computes with masks that are chosen anew, and `update` gets |θ| of all weights.

    Attributes:
        straight: whether θ's gradient is that of the masked weight as it is (straight-through), or passes through
            the mask as the chain rule has it.
        pull: λ of λ·(1-m)⊙θ, which is added to the gradient (SR-STE); where there is a margin, of λθ on the mask and
            λθ over the mask's density on the margin (Top-KAST).
        margin: part of all weights, beyond those that the mask keeps, that is trained too, the largest; others stay
            as they are. None where all are trained.
        decay: λ of the L1 decay λ·sign(θ), which moves masked weights together with their gradients (CAST).
    """

    @property
    def straight(self) -> bool: ...  # noqa: D102  (above)
    @property
    def pull(self) -> float: ...  # noqa: D102
    @property
    def margin(self) -> float | None: ...  # noqa: D102
    @property
    def decay(self) -> float: ...  # noqa: D102

    def leak(self, step: int) -> float:
        """D of the forward weight θ⊙(m + D·(1-m)) at that step, between 0 and 1."""

    def shrinking(self, step: int) -> float:
        """Part α of (1-α)·g + α·λ·sign(θ), which moves masked weights at that step, between 0 and 1."""


class Smoothing(Algorithm, Protocol):
    """An algorithm that looks at an average of dense gradients.

    Attributes:
        smoothing: part of the average that stays in a step.
    """

    @property
    def smoothing(self) -> float: ...  # noqa: D102  (above)

    def averages(self, step: int) -> bool:
        """Whether the gradients of that step are still needed."""


class InRounds(Algorithm, Protocol):
    """An algorithm that prunes in rounds, before weights are trained.

    Attributes:
        rounds: how many there are.
    """

    @property
    def rounds(self) -> int: ...  # noqa: D102  (above)


class Recalling(InRounds, Protocol):
    """An algorithm in rounds of one batch each, between which pruned weights keep their values.

    Attributes:
        regrow: whether what an earlier round has pruned may come back, so that the gradients of all weights are
            looked at.
    """

    @property
    def regrow(self) -> bool: ...  # noqa: D102  (above)


@dataclass(frozen=True, slots=True)
class Asked:
    """Settings of a run that an algorithm is made from.

    Attributes:
        config: the method's switches.
        updates: when masks change.
        structure: of the masks.
        exempt: weights whose neurons are never ablated; None for the last masked one.
    """

    config: MethodConfig
    updates: Updates
    structure: MaskStructure
    exempt: Collection[str] | None = None

    @property
    def order(self) -> Order:
        """Order of a mask update and the optimizer's step."""
        return Order(self.config.order)


class RunMethod(ABC):
    """Algorithm that a run can name: a line in `iftplan.runs.methods`, and a class in a file of a folder beside this.

    What has a default here is what holds of an algorithm that says nothing of it.

    Attributes:
        name: of the method.
    """

    __slots__ = ()

    name: ClassVar[str]

    def __init_subclass__(cls) -> None:
        """Check the names of arguments where a dataclass has made a constructor of them."""
        if "__init__" in vars(cls):
            cls.__init__ = check_names(cls.__init__)  # type: ignore[method-assign]

    @classmethod
    @abstractmethod
    def of(cls, asked: Asked) -> Self:
        """Algorithm with the switches and the schedule of a run."""

    @property
    def needs_length(self) -> bool:
        """Whether the algorithm has to be told the length of training, a fraction of which some of its steps are at."""
        return False

    @property
    def in_parts(self) -> bool:
        """Whether updates can choose among parts of weights that processes share, so that masks can be sharded."""
        return False

    def over(self, steps: int) -> Self:
        """The same algorithm in a training of so many optimizer steps."""
        return self

    def opened(self, units: Sequence[int], targets: Sequence[int], rows: Sequence[int]) -> list[int]:
        """Units of each row that training begins with, layer by layer, under an algorithm that starts dense: all.

        Args:
            units: how many there are in a row.
            targets: how many of them stay in the end.
            rows: how many rows there are.
        """
        return list(units)

    def structure_refusal(self, structure: MaskStructure) -> str:
        """Sentence on masks that the algorithm is not made for: a method for them, a structure for it; else empty."""
        return ""

    def experts_refusal(self, weight: str) -> str:
        """Sentence on a stack of experts of which the algorithm would leave one more weights than another; else empty."""
        return ""

    def cautions(self, steps: int, rate: Callable[[int], float] | None = None) -> list[str]:
        """Sentences about when masks change in a run of so many steps; none is an error.

        Args:
            steps: optimizer steps of the whole run.
            rate: the learning rate by step, where it is known in advance.
        """
        return []


@dataclass(frozen=True, slots=True)
class Scheduled(RunMethod):
    """Algorithm that changes masks every so often, on a schedule that can be given as a whole or by its parts.

    Attributes:
        updates: when masks change; by default every 100 steps until three quarters of training, as RigL's authors
            have it (arXiv 1911.11134).
        interval: ΔT of the updates, in steps.
        begin: of the updates: a step, or a fraction of training as a float.
        end: of the updates: a step, or a fraction of training as a float.
    """

    updates: Updates = Updates(end=0.75)  # noqa: RUF009  (a frozen value)
    interval: InitVar[int | None] = field(default=None, kw_only=True)
    begin: InitVar[int | float | None] = field(default=None, kw_only=True)
    end: InitVar[int | float | None] = field(default=None, kw_only=True)

    def __post_init__(self, interval: int | None, begin: float | None, end: float | None) -> None:
        if (interval, begin, end) != (None, None, None):
            object.__setattr__(self, "updates", self.updates.but(interval, begin, end))

    @property
    def needs_length(self) -> bool:
        """Whether updates begin or end at a fraction of training."""
        return isinstance(self.updates, Updates) and self.updates.needs_length

    def over(self, steps: int) -> Self:
        """The same algorithm in a training of so many optimizer steps."""
        return replace(self, updates=self.updates.over(steps)) if self.needs_length else self
