"""Effective MACs beside the static ones of an audit: measured on data, and held against nothing unless that is asked."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from math import floor
from typing import TYPE_CHECKING

from iftplan.base.units import Convention, count
from iftplan.models.dynamic.activations import ActivationSparsity
from iftplan.models.dynamic.tables import unobserved_sentence

if TYPE_CHECKING:
    from iftplan.plans.audit.audit import AuditedLayer, AuditReport


@dataclass(frozen=True, slots=True)
class EffectiveCost:
    """Effective MACs of a model's forward pass: those whose activation was not zero on the data.

    Attributes:
        data: name of the data.
        samples: of them that were looked at.
        selection: rule by which inputs were set to zero, as it is written.
        static_macs: MACs of the whole model, zeros included.
        macs: effective MACs of the same pass; None with operators of unknown cost.
        loss: mean cross entropy in nats on the data; None without targets.
        budget_macs: the most effective MACs that were asked for; None where none were.
    """

    data: str
    samples: int
    selection: str
    static_macs: int
    macs: int | None
    loss: float | None = None
    budget_macs: int | None = None

    @property
    def share(self) -> Fraction | None:
        """Share of the static MACs that is effective; None where that is not known."""
        return None if self.macs is None or not self.static_macs else Fraction(self.macs, self.static_macs)


def effective_convention(convention: Convention) -> str:
    """Name of the convention that effective counts are in, which no static count has."""
    return f"effective_{convention.value}"


def effective_unit(convention: Convention) -> str:
    """Unit of effective counts, for people."""
    return f"effective {convention.unit}"


def with_effective(
    report: AuditReport, found: ActivationSparsity, data: str, budget: int | None = None
) -> AuditReport:
    """The report with effective MACs beside the static ones; they fail it only by a budget of their own.

    A layer's effective MACs are its static ones times the share that was effective on the data, rounded down.

    Args:
        report: of the same model.
        found: its activations on data.
        data: their name.
        budget: the most effective MACs; None for no limit.
    """
    layers = tuple(_with_activity(layer, found) for layer in report.layers)
    static = sum(layer.measured_macs or 0 for layer in layers)
    saved = sum(
        layer.measured_macs - layer.effective_macs
        for layer in layers
        if layer.measured_macs is not None and layer.effective_macs is not None
    )
    total = None if found.unknown or report.unknown_ops else static - saved
    effective = EffectiveCost(data, found.samples, found.selection, static, total, found.loss, budget)
    assumed = (unobserved_sentence(found),) if found.unobserved else ()
    return replace(
        report,
        layers=layers,
        effective=effective,
        unknown_ops={**found.unknown, **report.unknown_ops},
        assumptions=(*report.assumptions, *assumed),
        problems=(*report.problems, *_beyond(effective)),
    )


def _with_activity(layer: AuditedLayer, found: ActivationSparsity) -> AuditedLayer:
    seen = found.of_layer(layer.name)
    elements = sum(one.elements for one in seen)
    macs = sum(one.macs for one in seen)
    if layer.measured_macs is None or not elements:
        return layer
    share = Fraction(sum(one.effective_macs for one in seen), macs) if macs else Fraction(1)
    return replace(
        layer,
        effective_macs=floor(layer.measured_macs * share),
        activation_ratio=Fraction(sum(one.nonzeros for one in seen), elements),
    )


def _beyond(effective: EffectiveCost) -> tuple[str, ...]:
    if effective.budget_macs is None or effective.macs is None or effective.macs <= effective.budget_macs:
        return ()
    return (
        f"{count(effective.macs)} effective MACs were measured on {effective.data}, and at most {count(effective.budget_macs)} were asked for.",
    )
