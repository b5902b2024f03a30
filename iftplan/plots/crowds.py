"""Configurations that cost the same, too many to be told apart in one place of a cost axis: a column for each series."""

from __future__ import annotations

from dataclasses import dataclass

from iftplan.plots.style import si
from iftplan.runs.results.configurations import ConfigurationResult
from iftplan.runs.results.pareto import Sense
from iftplan.runs.results.tradeoff import TradeOff

_CROWD = 12  # points of equal cost from which on they are drawn side by side too
_SERIES = 3
_MOST = 2  # crowds that one figure has room for


@dataclass(frozen=True, slots=True)
class Crowd:
    """Configurations of equal cost.

    Attributes:
        cost: mean of their costs.
        columns: series and its configurations, the best series last.
    """

    cost: float
    columns: tuple[tuple[str, tuple[ConfigurationResult, ...]], ...]

    @property
    def title(self) -> str:
        """Line above the columns: how many points, and their common cost."""
        count = sum(len(entries) for _, entries in self.columns)
        return f"the {count} at equal cost, ≈ {si(self.cost)}"


def crowds(found: TradeOff) -> tuple[Crowd, ...]:
    """Groups of equal cost that have many points of several series, the largest first."""
    worst_first = -1 if found.y.sense is Sense.LOWER else 1
    gathered = []
    for group in sorted(found.groups, key=len, reverse=True):
        series: dict[str, list[ConfigurationResult]] = {}
        for i in group:
            series.setdefault(found.entries[i].series, []).append(found.entries[i])
        if len(group) < _CROWD or len(series) < _SERIES:
            continue
        ordered = sorted(series.items(), key=lambda item: max(worst_first * e.y.mean for e in item[1]))
        cost = sum(found.entries[i].x.mean for i in group) / len(group)
        gathered.append(Crowd(cost, tuple((name, tuple(entries)) for name, entries in ordered)))
    return tuple(gathered[:_MOST])


def place_in_column(entry: ConfigurationResult) -> str:
    """Sparsity of a configuration, short enough to stand beside its point; empty for dense ones."""
    sparsity = entry.what.sparsity
    return f"{sparsity:g}" if sparsity and not entry.what.dense else ""
