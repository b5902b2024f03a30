"""What was planned, trained or published, one value each, whatever document it was read from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from iftplan.base.errors import InputError
from iftplan.runs.results.pareto import Sense


@dataclass(frozen=True, slots=True)
class Metric:
    """A measure of quality.

    Attributes:
        name: the one name that all its spellings are read as.
        unit: as it is printed; empty for none.
        better: which way.
        scale: what a recorded number is multiplied by to be in that unit.
    """

    name: str
    unit: str
    better: Sense
    scale: float = 1.0


METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        "accuracy": Metric("accuracy", "%", Sense.HIGHER, 100.0),  # runs record a fraction
        "top1": Metric("accuracy", "%", Sense.HIGHER),
        "perplexity": Metric("perplexity", "", Sense.LOWER),
        "ppl": Metric("perplexity", "", Sense.LOWER),
        "loss": Metric("loss", "nats", Sense.LOWER),
        "AP": Metric("AP", "%", Sense.HIGHER),
        "mIoU": Metric("mIoU", "%", Sense.HIGHER),
        "EM": Metric("exact match", "%", Sense.HIGHER),
    }
)


@dataclass(frozen=True, slots=True)
class Observation:
    """One plan, run or published result; what it does not say is None or empty.

    Attributes:
        source: where it was read from, for people.
        model: the dense model.
        transform: the family; "none" for the dense model or plain sparsity.
        sparsity: fraction of zeros that was asked for.
        distribution: how density is spread.
        structure: what masks may look like.
        scope: whose MACs were closed.
        method: how it was trained.
        task: the data it was trained on.
        convention: what its counts count.
        seed: of the run.
        macs: of one sample's forward pass, the whole model.
        dense_macs: of the dense model's.
        train_macs: of the whole training run.
        nnz: weights kept under masks.
        maskable_weights: weights under masks.
        log2_masks: bits to name all masks.
        metric: the measure's name, as in `METRICS`.
        value: what was measured, as the source has it; `Metric.scale` brings it into the metric's unit.
        error: what the source itself gives as ±.
        published: whether others measured it.
        nonlinear: whether members have a norm and an activation inside; None where there is no inside.
        settings: what else shaped its model or training, names and values; empty where the source says nothing.
    """

    source: str
    model: str = ""
    transform: str = ""
    sparsity: float | None = None
    distribution: str = ""
    structure: str = ""
    scope: str = ""
    method: str = ""
    task: str = ""
    convention: str = "mac"
    seed: int | None = None
    macs: int | None = None
    dense_macs: int | None = None
    train_macs: int | None = None
    nnz: int | None = None
    maskable_weights: int | None = None
    log2_masks: float | None = None
    metric: str = ""
    value: float | None = None
    error: float | None = None
    published: bool = False
    nonlinear: bool | None = None
    settings: tuple[tuple[str, str], ...] = ()

    @property
    def dense(self) -> bool:
        """Whether the observation is a dense model, with which others are compared."""
        return self.transform in ("none", "dense", "") and not self.sparsity

    @property
    def maskless(self) -> bool:
        """Whether no weight has a mask."""
        return self.dense or self.transform == "lowrank" or self.maskable_weights == 0


def metric_named(name: str, better: Sense | None = None) -> Metric:
    """The metric that a document names.

    Args:
        name: its spelling there.
        better: which way a metric that is not among `METRICS` is better.

    Raises:
        InputError: an unknown name, where nobody said which way is better.
    """
    known = METRICS.get(name)
    if known is None and better is None:
        raise InputError(
            f"iftplan does not know the metric {name!r} (it knows {', '.join(METRICS)}). Say which way is better: "
            "`better='higher'` or `better='lower'`."
        )
    return known or Metric(name, "", better or Sense.HIGHER)
