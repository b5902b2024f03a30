"""What is paid and what is got: the two axes on which observations are held against each other."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from iftplan.base.units import Convention
from iftplan.runs.results.observations import Metric, Observation
from iftplan.runs.results.pareto import Sense


class Cost(StrEnum):
    """Cost of an observation: MACs of training or of a forward pass, or weights."""

    TRAINING = "training"
    INFERENCE = "inference"
    PARAMS = "params"


class Gain(StrEnum):
    """Quality or size of the search space that an observation has for its cost."""

    METRIC = "metric"
    LOG2_MASKS = "log2_masks"
    MASKABLE_WEIGHTS = "maskable_weights"


@dataclass(frozen=True, slots=True)
class Axis:
    """Quantity, unit and better direction of one axis.

    Attributes:
        name: of the quantity, with what it is counted over.
        unit: empty for a number without one.
        sense: which way is better.
    """

    name: str
    unit: str
    sense: Sense

    @property
    def title(self) -> str:
        """Name and unit in one line."""
        return f"{self.name} ({self.unit})" if self.unit else self.name


def cost_of(o: Observation, cost: Cost) -> int | None:
    """Cost of an observation, in MACs or weights under masks; None if the observation has no such number."""
    match cost:
        case Cost.TRAINING:
            return o.train_macs
        case Cost.INFERENCE:
            return o.macs
        case Cost.PARAMS:
            return o.nnz or None  # without masks nothing is said of the weights


def gain_of(o: Observation, gain: Gain) -> float | None:
    """Gain of an observation, in the unit of its source; None if the observation has no such number."""
    match gain:
        case Gain.METRIC:
            return o.value
        case Gain.LOG2_MASKS:
            return o.log2_masks
        case Gain.MASKABLE_WEIGHTS:
            return o.maskable_weights


COST_NAMES = {
    Cost.TRAINING: "training MACs",
    Cost.INFERENCE: "MACs",
    Cost.PARAMS: "count of weights (nnz)",
}
GAIN_NAMES = {
    Gain.METRIC: "metric",
    Gain.LOG2_MASKS: "size of its search space (log2_masks)",
    Gain.MASKABLE_WEIGHTS: "maskable weights",
}


def cost_axis(cost: Cost, convention: Convention) -> Axis:
    """The axis of a cost, with what it is counted over."""
    match cost:
        case Cost.TRAINING:
            return Axis(f"training {convention.unit}, whole run", "", Sense.LOWER)
        case Cost.INFERENCE:
            return Axis(f"inference {convention.unit}, forward pass of one sample", "", Sense.LOWER)
        case Cost.PARAMS:
            return Axis("weights kept under masks (nnz)", "", Sense.LOWER)


def gain_axis(gain: Gain, metric: Metric | None) -> Axis:
    """The axis of a gain, and which way is better."""
    match gain:
        case Gain.METRIC if metric is not None:
            return Axis(metric.name, metric.unit, metric.better)
        case Gain.LOG2_MASKS:
            return Axis("search space, log2 of the number of masks", "bits", Sense.HIGHER)
    return Axis("search space, maskable weights", "", Sense.HIGHER)
