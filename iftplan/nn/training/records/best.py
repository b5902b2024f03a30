"""Best evaluation of a run on its validation data; it follows from the rows of metrics.csv, so a resumed run agrees.

Only evaluations at the density of the last one count: a network that a method has not yet thinned costs more than the
one that a run ends with, and would stand for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

COLUMNS = ("validation_loss", "validation_metric")
"""Columns of metrics.csv in runs that keep validation data aside."""


def best_index(rows: Sequence[Mapping[str, str]]) -> int | None:
    """Index of the first row with the smallest validation loss at the last row's density; None where no row has one."""
    density = rows[-1].get("density") if rows else None
    losses = {
        i: float(row["validation_loss"])
        for i, row in enumerate(rows)
        if "validation_loss" in row and row.get("density") == density
    }
    return min(losses, key=losses.__getitem__) if losses else None


def best_step(rows: Sequence[Mapping[str, str]]) -> int | None:
    """Steps taken before the best evaluation; None where no row has a validation loss."""
    index = best_index(rows)
    return None if index is None else int(rows[index]["step"])


def has_waited(rows: Sequence[Mapping[str, str]], patience: int) -> bool:
    """Whether the last `patience` evaluations did not improve on the best one; False if `patience` is 0."""
    index = best_index(rows)
    return patience > 0 and index is not None and len(rows) - 1 - index >= patience
