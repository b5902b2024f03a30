"""What happened over a run: the rows of its `metrics.csv` and `spectra.csv`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import TypeAlias, TypeVar

from iftplan.base.documents import csv_rows, read_text
from iftplan.base.errors import InputError
from iftplan.masks.spectra import MEASURES

H = TypeVar("H")


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
        raise InputError(
            f"{file} does not exist; give a directory that iftplan train wrote.{_runs_below(path, file.name)}"
        )
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


@dataclass(frozen=True, slots=True)
class SpectralHistory:
    """Spectra of a run's masks, each time they were measured.

    Attributes:
        name: of the run.
        steps: of the optimizer.
        layers: parameter name → measure → its value at each of the steps; NaN where the layer had none.
    """

    name: str
    steps: tuple[int, ...]
    layers: Mapping[str, Mapping[str, tuple[float, ...]]]

    def means(self, measure: str) -> tuple[float, ...]:
        """Mean of a measure over the layers that had it, at each of the steps; NaN where none had.

        Args:
            measure: one of `iftplan.masks.spectra.MEASURES`.
        """
        columns = zip(*(values[measure] for values in self.layers.values()), strict=True)
        return tuple(_mean([value for value in column if isfinite(value)]) for column in columns)


def read_spectra(directory: str) -> SpectralHistory:
    """Spectra of the masks of the run in a directory.

    Raises:
        InputError: they were not measured, or cannot be read; says where.
    """
    path = Path(directory)
    file = path / "spectra.csv" if path.is_dir() else path
    if not file.exists():
        raise InputError(
            f"{file} does not exist; a run measures the spectra of its masks when its setting training.spectra is evaluation "
            f"or update.{_runs_below(path, file.name)}"
        )
    rows = csv_rows(read_text(str(file)), str(file), ("step", "layer", *MEASURES))
    if not rows:
        raise InputError(
            f"{file} has no rows: no mask had inputs and outputs with three kept weights on average, and of fewer the bounds "
            "say nothing."
        )
    found: dict[tuple[int, str], dict[str, float]] = {}
    for i, row in enumerate(rows, start=1):
        where = f"{file}, row {i}"
        step = _number(row, "step", where)
        if step != int(step) or (int(step), row["layer"]) in found:
            raise InputError(
                f"{where}: step is {row['step']}; each layer has one row at a step, which is a whole number."
            )
        found[int(step), row["layer"]] = {
            name: _number(row, name, where) if row[name] else float("nan") for name in MEASURES
        }
    steps, unknown = sorted({step for step, _ in found}), dict.fromkeys(MEASURES, float("nan"))
    layers = {
        layer: {name: tuple(found.get((step, layer), unknown)[name] for step in steps) for name in MEASURES}
        for layer in dict.fromkeys(layer for _, layer in found)
    }
    return SpectralHistory(path.name or str(path), tuple(steps), layers)


def _runs_below(folder: Path, file: str) -> str:
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


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else float("nan")


def _number(row: Mapping[str, str], name: str, where: str) -> float:
    """A finite number of a table's row."""
    try:
        value = float(row[name])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{where}: {name} is {row.get(name)!r}; it must be a number.") from error
    if not isfinite(value):
        raise InputError(f"{where}: {name} is {row[name]}, which cannot be drawn.")
    return value


def _column(rows: list[dict[str, str]], name: str, file: str) -> tuple[float, ...]:
    return tuple(_number(row, name, f"{file}, row {i}") for i, row in enumerate(rows, start=1))
