"""Runs that a law is fitted to: a table with a column for each of its variables, and one for the loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite

from iftplan.base.documents import csv_rows, read_text
from iftplan.base.errors import InputError
from iftplan.runs.laws.law import Law


@dataclass(frozen=True, slots=True)
class LawRuns:
    """Measured runs.

    Attributes:
        values: variable → its value in each run.
        losses: of each run, in the same order.
    """

    values: Mapping[str, tuple[float, ...]]
    losses: tuple[float, ...]

    def __len__(self) -> int:
        """Number of runs."""
        return len(self.losses)


def read_runs(path: str, law: Law) -> LawRuns:
    """Runs of a CSV table, with a column for each of the law's variables and one for what the law gives.

    Raises:
        InputError: no such table, a column that is missing, or a cell that is no number the variable can have.
    """
    result = result_column(law)
    rows = csv_rows(read_text(path), path, (*(v.name for v in law.variables), result))
    numbers = [
        {
            name: _number(row[name], name, f"{path}, row {i}")
            for name in (*(v.name for v in law.variables), result)
        }
        for i, row in enumerate(rows, start=1)
    ]
    for i, row in enumerate(numbers, start=1):
        for variable in law.variables:
            try:
                variable.check(row[variable.name])
            except InputError as error:
                raise InputError(f"{path}, row {i}: {error}") from error
        if row[result] <= 0:
            raise InputError(f"{path}, row {i}: {result} is {row[result]:g}; it must be above 0.")
    return LawRuns(
        {v.name: tuple(row[v.name] for row in numbers) for v in law.variables},
        tuple(row[result] for row in numbers),
    )


def result_column(law: Law) -> str:
    """Name of the column that holds what the law gives."""
    return law.result.replace(" ", "_")


def _number(text: str, name: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not isfinite(value):
        raise InputError(f"{where}: {name} is {text[:40]!r}, which is no number.")
    return value
