"""The records of a run directory: run.json, plan.json, metrics.csv, result.json; each written in one step."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from iftplan.base.documents import write_text

COLUMNS = (
    "step",
    "epoch",
    "loss",
    "test_loss",
    "metric",
    "train_macs",
    "density",
    "itop",
    "degree_of_constraint",
    "churn",
    "lr",
)
DORMANT = ("dormant", "recycled")
"""Columns of runs that count dormant neurons."""
Row = Mapping[str, int | float]


@dataclass(slots=True)
class Metrics:
    """metrics.csv: one row per evaluation, kept in memory and written whole.

    Attributes:
        path: the file.
        columns: of the table.
        rows: so far, as text by column.
    """

    path: Path
    columns: tuple[str, ...] = COLUMNS
    rows: list[Mapping[str, str]] = field(default_factory=list)

    def add(self, row: Row) -> None:
        """Add one row, which is not written yet."""
        self.rows.append({name: _text(row[name]) for name in self.columns})

    def write(self) -> None:
        """Write the whole file; a resumed run that measures other things has the columns of both, empty where it did not."""
        columns = dict.fromkeys((*self.columns, *(name for row in self.rows for name in row)))
        text = io.StringIO()
        writer = csv.DictWriter(text, list(columns), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_text(text.getvalue(), str(self.path))


def _text(value: float) -> str:
    """Text of a number: integers in full, floats with as many digits as give the same number back."""
    return repr(value)


def last_row(rows: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """Numbers of the last row by column; empty where there is none."""
    if not rows:
        return {}
    return {k: float(v) if "." in v or "e" in v or "n" in v else int(v) for k, v in rows[-1].items()}
