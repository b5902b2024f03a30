"""Sweeps as tables: what people look at, and every column as it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple
from typing import Any

from iftplan.base.units import count, decimal
from iftplan.report.table import Table
from iftplan.runs.sweeps.grid import COLUMNS, PLANNED, TRAINED, UNFINISHED, GridPoint

_SHOWN = 40
_CHOICES = (
    "model",
    "transform",
    "sparsity",
    "distribution",
    "structure",
    "scope",
    "budget",
    "method",
    "varied",
    "seed",
)
_FOUND: Mapping[str, Callable[[GridPoint], str]] = {
    ">MACs": lambda row: _number(row.macs, count),
    ">ratio": lambda row: _number(row.ratio, decimal),
    ">maskable weights": lambda row: _number(row.maskable_weights, count),
    ">bits to name a mask": lambda row: _number(row.log2_masks, lambda bits: f"{bits:.4g}"),
    ">training MACs": lambda row: _number(row.train_macs, lambda macs: f"{macs:.4g}"),
    ">metric": lambda row: _number(row.value, lambda value: decimal(value, 4)),
}


def sweep_table(rows: Sequence[GridPoint]) -> Table:
    """The first rows, with the columns in which they differ; common values stand above the table."""
    differ = [name for name in _CHOICES if len({getattr(row, name) for row in rows}) > 1]
    alike = [
        f"{name} {_cell(getattr(rows[0], name))}"
        for name in _CHOICES
        if name not in differ and getattr(rows[0], name) is not None
    ]
    found = {name: cell for name, cell in _FOUND.items() if any(map(cell, rows))}
    often = _repeated_reasons(rows[:_SHOWN])
    heads = [*(f">{n}" if n in ("sparsity", "seed") else n for n in differ), *found, "outcome"]
    cells = tuple(
        (
            *(_cell(getattr(row, n)) for n in differ),
            *(cell(row) for cell in found.values()),
            often.get(row.outcome, row.outcome),
        )
        for row in rows[:_SHOWN]
    )
    more = len(rows) - _SHOWN
    notes = [f"{mark}: {reason}" for reason, mark in often.items()]
    notes += [f"{count(more)} rows more; -o FILE.csv holds them all"] if more > 0 else []
    return Table(tuple(heads), cells, ", ".join(alike), tuple(notes))


def _repeated_reasons(rows: Sequence[GridPoint]) -> Mapping[str, str]:
    """Reason of several rows that have no result → the words that stand for it in each of them."""
    times = Counter(row.outcome for row in rows if row.outcome not in (PLANNED, TRAINED, UNFINISHED))
    often = [reason for reason, number in times.items() if number > 1]
    return {reason: f"no result ({number})" for number, reason in enumerate(often, 1)}


def whole_table(rows: Sequence[GridPoint]) -> Table:
    """All rows and columns, numbers as they are; what is missing is empty."""
    return Table(COLUMNS, tuple(tuple(map(_cell, astuple(row))) for row in rows))


def search_table(shares: Mapping[str, float], trials: int, axes: str) -> Table:
    """Hypervolume of each search at equal numbers of trials and by how much it beat chance, with a note on those that did not.

    Args:
        shares: search → its hypervolume, a fraction of 1.
        trials: of each search.
        axes: what the hypervolume is measured in, for a note.
    """
    rows = tuple(
        (name, str(trials), decimal(share, 4), "" if name == "random" else _over(share, shares["random"]))
        for name, share in shares.items()
    )
    beaten = [name for name, share in shares.items() if name != "random" and share <= shares["random"]]
    notes = (f"{name} did not beat random search here; use both, or more trials" for name in beaten)
    return Table(("search", ">trials", ">hypervolume", ">over random"), rows, notes=(axes, *notes))


def _over(share: float, chance: float) -> str:
    """Difference of two hypervolumes, with its sign."""
    return f"{'-' if share < chance else '+'}{decimal(abs(share - chance), 4)}"


def _number(value: float | None, shown: Callable[[Any], str]) -> str:
    return "" if value is None else shown(value)


def _cell(value: object) -> str:
    return "" if value is None else repr(value) if isinstance(value, float) else str(value)
