"""Observations held against each other on two axes: what each configuration costs, and what is got for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from iftplan.errors import InputError
from iftplan.observations import Metric, Observation, metric_named
from iftplan.pareto import (
    Estimate,
    Point,
    Reading,
    Sense,
    Senses,
    equal_reading,
    estimate,
    frontier,
    iso_groups,
)
from iftplan.shown import Shown
from iftplan.units import Convention


class Cost(StrEnum):
    """What is paid."""

    TRAINING = "training"
    INFERENCE = "inference"
    PARAMS = "params"


class Gain(StrEnum):
    """What is got for it."""

    METRIC = "metric"
    LOG2_MASKS = "log2_masks"
    MASKABLE_WEIGHTS = "maskable_weights"


@dataclass(frozen=True, slots=True)
class Axis:
    """What one axis shows.

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


@dataclass(frozen=True, slots=True)
class Entry:
    """One configuration, its seeds taken together.

    Attributes:
        name: what tells it from the others.
        series: what is drawn alike.
        what: the first of its observations.
        x: what it costs.
        y: what is got.
    """

    name: str
    series: str
    what: Observation
    x: Estimate
    y: Estimate

    @property
    def point(self) -> Point:
        """Its place in the plane."""
        return Point(self.x.mean, self.y.mean)


@dataclass(frozen=True, slots=True)
class TradeOff(Shown):
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
    """

    x: Axis
    y: Axis
    convention: Convention
    entries: tuple[Entry, ...]
    frontier: tuple[int, ...]
    readings: tuple[tuple[int, Reading], ...]
    groups: tuple[tuple[int, ...], ...]
    notes: tuple[str, ...] = ()


def tradeoff(
    observations: Iterable[Observation],
    cost: Cost | None = None,
    gain: Gain = Gain.METRIC,
    *,
    convention: Convention = Convention.MAC,
    better: Sense | None = None,
    tolerance: float = 0.05,
) -> TradeOff:
    """Hold observations against each other.

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
    drawn = [o for o in given if _paid(o, cost) is not None and _got(o, gain) is not None]
    if not drawn:
        raise InputError(_nothing(given, cost, gain))
    _one(drawn, "data sets", lambda o: o.task)
    metric = _metric(drawn, better) if gain is Gain.METRIC else None
    x, y = _cost_axis(cost, convention), _gain_axis(gain, metric)
    entries = _entries(drawn, cost, gain, convention, metric)
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
        _notes(given, drawn, cost, gain),
    )


def _natural_cost(given: Sequence[Observation], gain: Gain) -> Cost:
    trained = any(o.train_macs is not None and o.value is not None for o in given)
    return Cost.TRAINING if trained and gain is Gain.METRIC else Cost.INFERENCE


def _paid(o: Observation, cost: Cost) -> int | None:
    match cost:
        case Cost.TRAINING:
            return o.train_macs
        case Cost.INFERENCE:
            return o.macs
        case Cost.PARAMS:
            return o.nnz


def _got(o: Observation, gain: Gain) -> float | None:
    match gain:
        case Gain.METRIC:
            return o.value
        case Gain.LOG2_MASKS:
            return o.log2_masks
        case Gain.MASKABLE_WEIGHTS:
            return o.maskable_weights


_COSTS = {
    Cost.TRAINING: "training MACs",
    Cost.INFERENCE: "MACs",
    Cost.PARAMS: "count of weights (nnz)",
}
_GAINS = {
    Gain.METRIC: "metric",
    Gain.LOG2_MASKS: "size of its search space (log2_masks)",
    Gain.MASKABLE_WEIGHTS: "maskable weights",
}


def _cost_axis(cost: Cost, convention: Convention) -> Axis:
    match cost:
        case Cost.TRAINING:
            return Axis(f"training {convention.unit}, whole run", "", Sense.LOWER)
        case Cost.INFERENCE:
            return Axis(f"inference {convention.unit}, forward pass of one sample", "", Sense.LOWER)
        case Cost.PARAMS:
            return Axis("weights kept under masks (nnz)", "", Sense.LOWER)


def _gain_axis(gain: Gain, metric: Metric | None) -> Axis:
    match gain:
        case Gain.METRIC if metric is not None:
            return Axis(metric.name, metric.unit, metric.better)
        case Gain.LOG2_MASKS:
            return Axis("search space, log2 of the number of masks", "bits", Sense.HIGHER)
    return Axis("search space, maskable weights", "", Sense.HIGHER)


def _one_convention(given: Sequence[Observation]) -> None:
    for o in given:
        if o.convention != Convention.MAC:
            other = next((p.source for p in given if p.convention == Convention.MAC), "iftplan")
            raise InputError(
                f"{o.source} counts in the convention {o.convention!r} and {other} in 'mac', which do not compare; make it again in MACs. --convention flop draws two for each MAC."
            )


def _one(given: Sequence[Observation], what: str, of: Callable[[Observation], str]) -> None:
    seen: dict[str, str] = {}
    for o in given:
        if name := of(o):
            seen.setdefault(name, o.source)
    if len(seen) > 1:
        (a, where_a), (b, where_b) = list(seen.items())[:2]
        raise InputError(
            f"{where_a} is of {a!r} and {where_b} of {b!r}: different {what} do not share a figure; draw them one at a time."
        )


def _metric(drawn: Sequence[Observation], better: Sense | None) -> Metric:
    _one(drawn, "metrics", lambda o: metric_named(o.metric, better).name)
    return metric_named(drawn[0].metric, better)


def _nothing(given: Sequence[Observation], cost: Cost, gain: Gain) -> str:
    if not given:
        return "there is nothing to draw; give run directories, tables or plans, or --paper."
    lacking = _COSTS[cost] if all(_paid(o, cost) is None for o in given) else _GAINS[gain]
    plans = all(o.value is None and o.train_macs is None for o in given)
    hint = (
        "plans are not trained yet: --y log2_masks --x inference draws what they say, iftplan train the rest"
        if plans
        else "--x and --y name other axes"
    )
    return f"none of {_sources(given)} has a {lacking}; {hint}."


def _sources(given: Sequence[Observation]) -> str:
    names = list(dict.fromkeys(o.source for o in given))
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _notes(
    given: Sequence[Observation], drawn: Sequence[Observation], cost: Cost, gain: Gain
) -> tuple[str, ...]:
    kept = set(map(id, drawn))
    left = [o for o in given if id(o) not in kept]
    if not left:
        return ()
    return (
        f"{len(left)} of {len(given)} have no {_COSTS[cost]} or no {_GAINS[gain]} and are left out: {_sources(left)}",
    )


# --- configurations ------------------------------------------------------------------------------------

_FIELDS = (
    "model",
    "transform",
    "sparsity",
    "distribution",
    "structure",
    "scope",
    "method",
    "task",
    "published",
)


def _entries(
    drawn: Sequence[Observation], cost: Cost, gain: Gain, convention: Convention, metric: Metric | None
) -> tuple[Entry, ...]:
    per = 1 if cost is Cost.PARAMS else convention.per_mac
    alike: dict[tuple[object, ...], list[Observation]] = {}
    for o in drawn:
        alike.setdefault(tuple(getattr(o, name) for name in _FIELDS), []).append(o)
    varying = _varying([group[0] for group in alike.values()])
    found = []
    for group in alike.values():
        first = group[0]
        scale = _scale(first, metric)
        x = estimate([(_paid(o, cost) or 0) * per for o in group])
        y = estimate([(_got(o, gain) or 0.0) * _scale(o, metric) for o in group])
        if len(group) == 1 and first.error is not None and metric:
            y = Estimate(y.mean, first.error * scale)
        found.append(Entry(_name(first, varying), _series(first, varying), first, x, y))
    return tuple(found)


def _scale(o: Observation, metric: Metric | None) -> float:
    return metric_named(o.metric, metric.better).scale if metric else 1.0


def _varying(whats: Sequence[Observation]) -> frozenset[str]:
    """What tells configurations apart; a dense one has no sparsity and no masks, so only its model counts."""
    sparse = [o for o in whats if not o.dense] or whats
    seen = {name: {getattr(o, name) for o in sparse} for name in _FIELDS}
    seen["model"] |= {o.model for o in whats}
    seen["published"] |= {o.published for o in whats}
    return frozenset(name for name, values in seen.items() if len(values) > 1)


def _name(o: Observation, varying: frozenset[str]) -> str:
    """What tells it from the others, as short as it can be."""
    parts = [o.model.removeprefix("zoo:")] if "model" in varying else []
    if o.dense:
        parts.append("dense")
    else:
        parts.append(o.transform if o.transform not in ("none", "") else "sparse")
        parts += [f"{o.sparsity:g}"] if o.sparsity is not None else []
        parts += [
            getattr(o, name)
            for name in ("structure", "distribution", "scope", "method")
            if name in varying and getattr(o, name)
        ]
    return " ".join(parts) + (" (paper)" if o.published and "published" in varying else "")


def _series(o: Observation, varying: frozenset[str]) -> str:
    """What is drawn in one colour: family and method."""
    name = "dense" if o.dense else o.transform if o.transform not in ("none", "") else "sparse"
    if not o.dense and o.method and "method" in varying:
        name += f", {o.method}"
    return f"paper: {name}" if o.published and "published" in varying else name


def _readings(entries: Sequence[Entry], senses: Senses) -> tuple[tuple[int, Reading], ...]:
    others = [entry.point for entry in entries if not entry.what.dense]
    if not others:
        return ()
    return tuple(
        (i, equal_reading(entry.point, others, senses)) for i, entry in enumerate(entries) if entry.what.dense
    )
