"""Trade-offs as documents."""

from __future__ import annotations

from typing import Any

from iftplan.base.documents import Document, with_digest
from iftplan.runs.results.axes import Axis
from iftplan.runs.results.configurations import ConfigurationResult
from iftplan.runs.results.tradeoff import TradeOff


def tradeoff_document(found: TradeOff) -> Document:
    """Axes, every configuration, the frontier, readings and groups of equal cost, sealed with its digest."""
    names = [entry.name for entry in found.entries]
    front = set(found.frontier)
    return with_digest(
        {
            "schema": "iftplan.pareto/1",
            "convention": found.convention.value,
            "x": _axis(found.x),
            "y": _axis(found.y),
            "points": [_point(entry, i in front) for i, entry in enumerate(found.entries)],
            "frontier": [names[i] for i in found.frontier],
            "readings": [
                {"reference": names[i], "outcome": r.outcome.value, "x": r.x, "ratio": r.ratio}
                for i, r in found.readings
            ],
            "iso_flop": [[names[i] for i in group] for group in found.groups],
            "notes": list(found.notes),
        }
    )


def _axis(axis: Axis) -> dict[str, Any]:
    return {"name": axis.name, "unit": axis.unit, "better": axis.sense.value}


def _point(entry: ConfigurationResult, on_frontier: bool) -> dict[str, Any]:
    what = entry.what
    return {
        "name": entry.name,
        "source": what.source,
        "model": what.model,
        "transform": what.transform,
        "sparsity": what.sparsity,
        "distribution": what.distribution,
        "structure": what.structure,
        "scope": what.scope,
        "method": what.method,
        "task": what.task,
        "published": what.published,
        "x": entry.x.mean,
        "x_error": entry.x.error,
        "y": entry.y.mean,
        "y_error": entry.y.error,
        "seeds": entry.y.count,
        "on_frontier": on_frontier,
    }
