"""Observations held against each other on two axes: what each configuration costs, and what is got for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from iftplan.base.arguments import check_arguments
from iftplan.base.errors import InputError
from iftplan.base.units import Convention
from iftplan.report.display import Displayed, Framed, Record
from iftplan.runs.results.axes import (
    COST_NAMES,
    GAIN_NAMES,
    Axis,
    Cost,
    Gain,
    cost_axis,
    cost_of,
    gain_axis,
    gain_of,
)
from iftplan.runs.results.configurations import ConfigurationResult, entries_of, unequal_settings
from iftplan.runs.results.observations import Metric, Observation, metric_named
from iftplan.runs.results.pareto import Reading, Sense, Senses, equal_reading, frontier, iso_groups

if TYPE_CHECKING:
    from iftplan.report.table import Table


@dataclass(frozen=True, slots=True)
class TradeOff(Displayed, Framed):
    """Configurations on two axes, with all that is read off them.

    Attributes:
        x: what the costs are.
        y: what the gains are.
        convention: what counts of work count.
        entries: the configurations, in the order in which they were found.
        frontier: those that no other dominates, by index, from the cheapest on.
        readings: dense configuration by index, and what the others' frontier costs where it is as good.
        groups: configurations of equal cost, by index.
        notes: sentences that a reader must know.
        tolerance: relative difference up to which costs are called equal.
    """

    x: Axis
    y: Axis
    convention: Convention
    entries: tuple[ConfigurationResult, ...]
    frontier: tuple[int, ...]
    readings: tuple[tuple[int, Reading], ...]
    groups: tuple[tuple[int, ...], ...]
    notes: tuple[str, ...] = ()
    tolerance: float = 0.05

    def tables(self) -> tuple[Table, ...]:
        """The tables that show the value, the details first."""
        from iftplan.runs.results.tables import tradeoff_table

        return (tradeoff_table(self),)

    def records(self) -> Sequence[Record]:
        """A row for each configuration, as in the document."""
        from iftplan.runs.results.document import tradeoff_document

        points: Sequence[Record] = tradeoff_document(self)["points"]
        return points


@check_arguments
def tradeoff(
    observations: Iterable[Observation],
    cost: Cost | None = None,
    gain: Gain = Gain.METRIC,
    *,
    convention: Convention = Convention.MAC,
    better: Sense | None = None,
    tolerance: float = 0.05,
) -> TradeOff:
    """Trade-off between cost and quality of observations: frontier, readings, and groups of equal cost.

    Args:
        observations: what was planned, trained or published.
        cost: what is paid; by default training for a metric where any says what it cost, else inference.
        gain: what is got for it.
        convention: counts of work per MAC on the axis.
        better: which way a metric is better that is not known here.
        tolerance: relative difference up to which costs are called equal.

    Raises:
        InputError: conventions, metrics or data sets would be mixed, or nothing has both numbers.
    """
    given = tuple(observations)
    cost = cost or _natural_cost(given, gain)
    _one_convention(given)
    drawn = [o for o in given if cost_of(o, cost) is not None and gain_of(o, gain) is not None]
    if not drawn:
        raise InputError(_nothing(given, cost, gain))
    _one(drawn, "data sets", lambda o: o.task)
    metric = _metric(drawn, better) if gain is Gain.METRIC else None
    x, y = cost_axis(cost, convention), gain_axis(gain, metric)
    entries = entries_of(drawn, cost, gain, convention, metric)
    senses = Senses(x.sense, y.sense)
    points = [entry.point for entry in entries]
    readings = _readings(entries, senses) if metric else ()
    groups = iso_groups([p.x for p in points], tolerance)
    return TradeOff(
        x,
        y,
        convention,
        entries,
        frontier(points, senses),
        readings,
        groups,
        (*_left_out(given, drawn, cost, gain), *_kept_apart(entries)),
        tolerance,
    )


def _natural_cost(given: Sequence[Observation], gain: Gain) -> Cost:
    trained = any(o.train_macs is not None and o.value is not None for o in given)
    return Cost.TRAINING if trained and gain is Gain.METRIC else Cost.INFERENCE


def _one_convention(given: Sequence[Observation]) -> None:
    for o in given:
        if o.convention != Convention.MAC:
            other = next((p.source for p in given if p.convention == Convention.MAC), "iftplan")
            raise InputError(
                f"{o.source} counts in {o.convention!r} and {other} in 'mac', so they cannot be compared. Make the "
                "first again in MACs; `convention='flop'` then draws two FLOPs for each MAC."
            )


def _one(given: Sequence[Observation], what: str, of: Callable[[Observation], str]) -> None:
    seen: dict[str, str] = {}
    for o in given:
        if name := of(o):
            seen.setdefault(name, o.source)
    if len(seen) > 1:
        (a, where_a), (b, where_b) = list(seen.items())[:2]
        raise InputError(
            f"{where_a} has {a!r} and {where_b} has {b!r}. Different {what} cannot share a figure; draw them "
            "separately."
        )


def _metric(drawn: Sequence[Observation], better: Sense | None) -> Metric:
    _one(drawn, "metrics", lambda o: metric_named(o.metric, better).name)
    return metric_named(drawn[0].metric, better)


def _nothing(given: Sequence[Observation], cost: Cost, gain: Gain) -> str:
    if not given:
        return "there is nothing to draw; give run directories, tables or plans, or `iftplan pareto --paper`."
    lacking = COST_NAMES[cost] if all(cost_of(o, cost) is None for o in given) else GAIN_NAMES[gain]
    plans = all(o.value is None and o.train_macs is None for o in given)
    hint = (
        "plans are not trained yet. Draw what they have, with `gain='log2_masks'` and `cost='inference'`, or "
        "train them with `iftplan train`"
        if plans
        else "choose other axes with `cost` and `gain`"
    )
    return f"none of {_sources(given)} has a {lacking}; {hint}."


def _sources(given: Sequence[Observation]) -> str:
    names = list(dict.fromkeys(o.source for o in given))
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _left_out(
    given: Sequence[Observation], drawn: Sequence[Observation], cost: Cost, gain: Gain
) -> tuple[str, ...]:
    kept = set(map(id, drawn))
    left = [o for o in given if id(o) not in kept]
    if not left:
        return ()
    return (
        f"{len(left)} of {len(given)} have no {COST_NAMES[cost]} or no {GAIN_NAMES[gain]} and are left out: {_sources(left)}",
    )


def _kept_apart(entries: Sequence[ConfigurationResult]) -> tuple[str, ...]:
    if not (names := unequal_settings(entries)):
        return ()
    told = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
    return (f"runs that differ in settings are separate points, not seeds of one; they differ in {told}",)


def _readings(entries: Sequence[ConfigurationResult], senses: Senses) -> tuple[tuple[int, Reading], ...]:
    others = [entry.point for entry in entries if not entry.what.dense]
    if not others:
        return ()
    return tuple(
        (i, equal_reading(entry.point, others, senses)) for i, entry in enumerate(entries) if entry.what.dense
    )
