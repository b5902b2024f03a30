"""Observations of one configuration taken together, and what tells it from the others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from iftplan.base.units import Convention
from iftplan.runs.results.axes import Cost, Gain, cost_of, gain_of
from iftplan.runs.results.observations import Metric, Observation, metric_named
from iftplan.runs.results.pareto import Estimate, Point, estimate

_FIELDS = (
    "model",
    "transform",
    "nonlinear",
    "sparsity",
    "distribution",
    "structure",
    "scope",
    "method",
    "task",
    "published",
    "settings",
)
"""What observations agree in that are seeds of one configuration."""

_PLAIN = ("", "none", "unstructured")


@dataclass(frozen=True, slots=True)
class ConfigurationResult:
    """Configuration with the mean of its seeds on both axes.

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
        """Place of the configuration in the plane of both axes."""
        return Point(self.x.mean, self.y.mean)


def entries_of(
    drawn: Sequence[Observation], cost: Cost, gain: Gain, convention: Convention, metric: Metric | None
) -> tuple[ConfigurationResult, ...]:
    """Configurations among observations that all have both numbers, in the order in which they are found.

    Args:
        drawn: observations; those that agree in all but the seed are one configuration, and those of one seed that differ
            are several.
        cost: the first number.
        gain: the second.
        convention: whether MACs are counted once or as two FLOPs.
        metric: measure of quality, whose scale values are multiplied by; None for gains that are no quality.
    """
    per = 1 if cost is Cost.PARAMS else convention.per_mac
    alike: dict[tuple[object, ...], list[list[Observation]]] = {}
    for o in drawn:
        _put(o, alike.setdefault(tuple(getattr(o, name) for name in _FIELDS), []))
    groups = [group for several in alike.values() for group in several]
    varying = _varying([group[0] for group in groups])
    found = []
    for group in groups:
        first = group[0]
        x = estimate([(cost_of(o, cost) or 0) * per for o in group])
        y = estimate([(gain_of(o, gain) or 0.0) * _scale(o, metric) for o in group])
        if len(group) == 1 and first.error is not None and metric:
            y = Estimate(y.mean, first.error * _scale(first, metric))
        found.append(ConfigurationResult(_name(first, varying), _series(first, varying), first, x, y))
    return tuple(_told_apart(found))


def _put(o: Observation, groups: list[list[Observation]]) -> None:
    """Add an observation to the first group without its seed; two results of one seed, or of none, are no seeds of one configuration."""
    for group in groups:
        same = [other for other in group if other.seed == o.seed]
        if not same:
            group.append(o)
            return
        if replace(o, source="") == replace(same[0], source=""):  # the same run, given twice
            return
    groups.append([o])


def unequal_settings(entries: Sequence[ConfigurationResult]) -> tuple[str, ...]:
    """Names of settings in which configurations differ that agree in all else."""
    found: set[str] = set()
    for group in _twins(entries):
        found |= set(_differing([entries[i] for i in group]))
    return tuple(sorted(found))


def _scale(o: Observation, metric: Metric | None) -> float:
    return metric_named(o.metric, metric.better).scale if metric else 1.0


def _varying(whats: Sequence[Observation]) -> frozenset[str]:
    """What tells configurations apart; what is said of masks counts only where there are masks."""
    masked = [o for o in whats if not o.maskless]
    sparse = [o for o in whats if not o.dense] or whats
    among = {
        "model": whats,
        "published": whats,
        "distribution": masked,
        "structure": masked,
        "scope": sparse,
        "method": masked,
    }
    seen = {name: {getattr(o, name) for o in among.get(name, sparse)} for name in _FIELDS}
    # what is unsaid is no other value, but for the structure, which then is none
    said = {name: values if name == "structure" else values - {"", None} for name, values in seen.items()}
    return frozenset(name for name, values in said.items() if len(values) > 1)


def _name(o: Observation, varying: frozenset[str]) -> str:
    """What tells it from the others, as short as it can be."""
    parts = [o.model.removeprefix("zoo:")] if "model" in varying else []
    parts.append(_family(o))
    if not o.dense:
        parts += ["linear"] if _linear(o, varying) else []
        parts += [f"{o.sparsity:g}"] if o.sparsity or (o.sparsity is not None and not o.maskless) else []
        unsaid = ("structure", "distribution") if o.maskless else ()
        parts += [
            getattr(o, name)
            for name in ("structure", "distribution", "scope")
            if name in varying and name not in unsaid and getattr(o, name) not in _PLAIN
        ]
        parts += [o.method] if _method_counts(o, varying) else []
    return " ".join(parts) + (" (paper)" if o.published and "published" in varying else "")


def _family(o: Observation) -> str:
    return "dense" if o.dense else "sparse" if o.transform in _PLAIN else o.transform


def _linear(o: Observation, varying: frozenset[str]) -> bool:
    return o.nonlinear is False and "nonlinear" in varying


def _method_counts(o: Observation, varying: frozenset[str]) -> bool:
    """Whether how masks change says anything."""
    return bool(o.method) and "method" in varying and not o.maskless


def _series(o: Observation, varying: frozenset[str]) -> str:
    """What is drawn in one colour: family and method."""
    name = _family(o)
    if not o.dense:
        name += " linear" if _linear(o, varying) else ""
        name += f", {o.method}" if _method_counts(o, varying) else ""
    return f"paper: {name}" if o.published and "published" in varying else name


# --- configurations of one name --------------------------------------------------------------------------


def _told_apart(entries: Sequence[ConfigurationResult]) -> Iterator[ConfigurationResult]:
    """Entries of one name get the settings that they differ in, as few as tell them apart."""
    suffixes = {}
    for group in _twins(entries):
        twins = [entries[i] for i in group]
        telling = _telling(twins)
        for i, entry in zip(group, twins, strict=True):
            said = dict(entry.what.settings)
            suffixes[i] = "".join(f", {key.split('.')[-1]} {said[key]}" for key in telling if key in said)
    names = [entry.name + suffixes.get(i, "") for i, entry in enumerate(entries)]
    for name, entry in zip(names, entries, strict=True):
        where = f" ({entry.what.source})" if names.count(name) > 1 and entry.what.source else ""
        yield replace(entry, name=name + where)


def _twins(entries: Sequence[ConfigurationResult]) -> list[list[int]]:
    """Those that agree in all but their settings, by index."""
    alike: dict[tuple[object, ...], list[int]] = {}
    for i, entry in enumerate(entries):
        key = tuple(getattr(entry.what, name) for name in _FIELDS if name != "settings")
        alike.setdefault(key, []).append(i)
    return [group for group in alike.values() if len(group) > 1]


def _differing(twins: Sequence[ConfigurationResult]) -> list[str]:
    settings = [dict(entry.what.settings) for entry in twins]
    keys = sorted(set().union(*settings))
    return [key for key in keys if len({said.get(key) for said in settings}) > 1]


def _telling(twins: Sequence[ConfigurationResult]) -> list[str]:
    settings = [dict(entry.what.settings) for entry in twins]
    found: list[str] = []
    told = 1
    for key in _differing(twins):
        count = len({tuple(said.get(k) for k in (*found, key)) for said in settings})
        if count > told:
            found, told = [*found, key], count
    return found
