"""Masks over a run: the weights that were ever active, and those that updates exchanged."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from iftplan.base.errors import InputError
from iftplan.runs.histories.reading import column, evaluations


@dataclass(frozen=True, slots=True)
class History:
    """A run's masks, evaluation by evaluation.

    Attributes:
        name: of the run.
        steps: of the optimizer.
        itop: part of the weights that was ever active, |∪ masks|/N (arXiv 2102.02887).
        churn: part of the active weights that the last update exchanged.
        density: part of the weights that is active.
    """

    name: str
    steps: tuple[int, ...]
    itop: tuple[float, ...]
    churn: tuple[float, ...]
    density: tuple[float, ...]


_COLUMNS = ("step", "itop", "churn", "density")


def read_history(directory: str) -> History:
    """The history in a run directory.

    Raises:
        InputError: there is none, or it cannot be read; says where.
    """
    file, rows, steps = evaluations(directory, _COLUMNS)
    columns = {name: column(rows, name, str(file)) for name in _COLUMNS}
    for name in ("itop", "churn", "density"):
        for i, value in enumerate(columns[name], start=1):
            if not 0 <= value <= 1:
                raise InputError(
                    f"{file}, row {i}: {name} is {value:g}; it is a fraction of the weights, so it must be from 0 to 1."
                )
    path = Path(directory)
    return History(path.name or str(path), steps, columns["itop"], columns["churn"], columns["density"])
