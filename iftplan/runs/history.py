"""What happened over a run: the rows of its `metrics.csv`."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from pathlib import Path

from iftplan.base.documents import csv_rows, read_text
from iftplan.base.errors import InputError


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
    path = Path(directory)
    file = path / "metrics.csv" if path.is_dir() else path
    if not file.exists():
        raise InputError(f"{file} does not exist; give a directory that iftplan train wrote.")
    rows = csv_rows(read_text(str(file)), str(file), _COLUMNS)
    if not rows:
        raise InputError(f"{file} has no rows yet; a run writes one at each evaluation.")
    columns = {name: _column(rows, name, str(file)) for name in _COLUMNS}
    for i, step in enumerate(columns["step"], start=1):
        before = columns["step"][i - 2] if i > 1 else -1.0
        if step != int(step) or step <= before:
            raise InputError(
                f"{file}, row {i}: step is {step:g} after {before:g}; steps must be whole numbers that increase."
            )
    for name in ("itop", "churn", "density"):
        for i, value in enumerate(columns[name], start=1):
            if not 0 <= value <= 1:
                raise InputError(
                    f"{file}, row {i}: {name} is {value:g}; it is a fraction of the weights, so it must be from 0 to 1."
                )
    return History(
        path.name or str(path),
        tuple(map(int, columns["step"])),
        columns["itop"],
        columns["churn"],
        columns["density"],
    )


def _column(rows: list[dict[str, str]], name: str, file: str) -> tuple[float, ...]:
    found = []
    for i, row in enumerate(rows, start=1):
        try:
            found.append(float(row[name]))
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{file}, row {i}: {name} is {row.get(name)!r}; it must be a number.") from error
        if not isfinite(found[-1]):
            raise InputError(f"{file}, row {i}: {name} is {row[name]}, which cannot be drawn.")
    return tuple(found)
