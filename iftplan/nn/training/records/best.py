"""Best evaluation of a run on its validation data; it follows from the rows of metrics.csv, so a resumed run agrees.

Only evaluations since the density and the widths were last others count: a network that a method has not yet thinned, or
that has still to grow, is not the one that a run ends with, and would stand for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

GROWN = "forward_macs"
"""Column of metrics.csv in runs whose network grows: MACs of a forward pass of one sample."""

COLUMNS = ("validation_loss", "validation_metric")
"""Columns of metrics.csv in runs that keep validation data aside."""


def best_index(rows: Sequence[Mapping[str, str]]) -> int | None:
    """Index of the first row with the smallest validation loss, of the last ones that are of one network; None where there is none."""
    begin = len(rows)
    while begin and _network(rows[begin - 1]) == _network(rows[-1]):
        begin -= 1
    losses = {
        i: float(rows[i]["validation_loss"]) for i in range(begin, len(rows)) if "validation_loss" in rows[i]
    }
    return min(losses, key=losses.__getitem__) if losses else None


def _network(row: Mapping[str, str]) -> tuple[str | None, ...]:
    """What tells the networks of a run's evaluations apart."""
    return row.get("density"), row.get(GROWN)


def best_step(rows: Sequence[Mapping[str, str]]) -> int | None:
    """Steps taken before the best evaluation; None where no row has a validation loss."""
    index = best_index(rows)
    return None if index is None else int(rows[index]["step"])


def has_waited(rows: Sequence[Mapping[str, str]], patience: int) -> bool:
    """Whether the last `patience` evaluations did not improve on the best one; False if `patience` is 0."""
    index = best_index(rows)
    return patience > 0 and index is not None and len(rows) - 1 - index >= patience
