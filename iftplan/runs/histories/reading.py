"""Tables that a run writes as it goes: found in its directory, and read with the place of what is wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import TypeAlias, TypeVar

from iftplan.base.documents import csv_rows, read_text
from iftplan.base.errors import InputError

H = TypeVar("H")

Rows: TypeAlias = list[dict[str, str]]


def evaluations(directory: str, columns: Sequence[str]) -> tuple[Path, Rows, tuple[int, ...]]:
    """The `metrics.csv` of a run: its file, its rows, and the steps of the optimizer that they stand at.

    Args:
        directory: of the run, or the file.
        columns: that it has at least, the first of them `step`.

    Raises:
        InputError: there is none, or it cannot be read; says where.
    """
    path = Path(directory)
    file = path / "metrics.csv" if path.is_dir() else path
    if not file.exists():
        raise InputError(
            f"{file} does not exist; give a directory that iftplan train wrote.{runs_below(path, file.name)}"
        )
    rows = csv_rows(read_text(str(file)), str(file), columns)
    if not rows:
        raise InputError(f"{file} has no rows yet; a run writes one at each evaluation.")
    steps = column(rows, "step", str(file))
    for i, step in enumerate(steps, start=1):
        before = steps[i - 2] if i > 1 else -1.0
        if step != int(step) or step <= before:
            raise InputError(
                f"{file}, row {i}: step is {step:g} after {before:g}; steps must be whole numbers that increase."
            )
    return file, rows, tuple(map(int, steps))


def runs_below(folder: Path, file: str) -> str:
    """Sentence with the directories in a folder that have such a file; empty where none has."""
    found = sorted(str(inner.parent) for inner in folder.glob(f"*/{file}"))
    if not found:
        return ""
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    return f" Runs in {folder}: {', '.join(found[:3])}{more}."


Runs: TypeAlias = str | Path | H | Sequence[str | Path | H]
"""Runs as a caller has them: directories, or what was read of them; one or several."""


def read_all(runs: Runs[H], read: Callable[[str], H]) -> tuple[H, ...]:
    """Histories of runs that are given as directories or as histories.

    Args:
        runs: one or several.
        read: directory → its history.

    Raises:
        InputError: a directory without a history, or no run at all.
    """
    several = runs if isinstance(runs, Sequence) and not isinstance(runs, str) else (runs,)
    if not several:
        raise InputError("no runs were given. Name the directories that iftplan train wrote.")
    return tuple(read(str(run)) if isinstance(run, str | Path) else run for run in several)


def number(row: Mapping[str, str], name: str, where: str) -> float:
    """A finite number of a table's row.

    Args:
        row: of the table.
        name: of the column.
        where: file and row, for people.

    Raises:
        InputError: it is none.
    """
    try:
        value = float(row[name])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{where}: {name} is {row.get(name)!r}; it must be a number.") from error
    if not isfinite(value):
        raise InputError(f"{where}: {name} is {row[name]}, which cannot be drawn.")
    return value


def column(rows: Rows, name: str, file: str) -> tuple[float, ...]:
    """The finite numbers of a table's column.

    Args:
        rows: of the table.
        name: of the column.
        file: for people.
    """
    return tuple(number(row, name, f"{file}, row {i}") for i, row in enumerate(rows, start=1))
