"""Spectra of masks over a run, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

from iftplan.base.documents import csv_rows, read_text
from iftplan.base.errors import InputError
from iftplan.masks.spectra import MEASURES
from iftplan.runs.histories.reading import number, runs_below


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
            f"or update.{runs_below(path, file.name)}"
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
        step = number(row, "step", where)
        if step != int(step) or (int(step), row["layer"]) in found:
            raise InputError(
                f"{where}: step is {row['step']}; each layer has one row at a step, which is a whole number."
            )
        found[int(step), row["layer"]] = {
            name: number(row, name, where) if row[name] else float("nan") for name in MEASURES
        }
    steps, unknown = sorted({step for step, _ in found}), dict.fromkeys(MEASURES, float("nan"))
    layers = {
        layer: {name: tuple(found.get((step, layer), unknown)[name] for step in steps) for name in MEASURES}
        for layer in dict.fromkeys(layer for _, layer in found)
    }
    return SpectralHistory(path.name or str(path), tuple(steps), layers)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else float("nan")
