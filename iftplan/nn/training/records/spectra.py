"""spectra.csv: singular values of every mask, each time they are measured; and their means for metrics.csv."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from torch import nn

from iftplan.base.documents import csv_rows, read_text, write_text
from iftplan.masks.spectra import MEASURES, Spectrum
from iftplan.nn.masking.measures.spectra import spectra

COLUMNS = ("step", "layer", "sigma1", "sigma2", *MEASURES)


@dataclass(slots=True)
class SpectralRecord:
    """Spectra of a run's masks, kept in memory and written whole.

    Attributes:
        path: the file, spectra.csv.
        when: masks are measured: at every "evaluation", or after every "update" of theirs.
        rows: so far, as text by column; an unknown measure is empty.
    """

    path: Path
    when: Literal["evaluation", "update"]
    rows: list[Mapping[str, str]] = field(default_factory=list)

    def is_due(self, *, updated: bool, evaluated: bool, at_end: bool) -> bool:
        """Whether the masks are to be measured after a step.

        Args:
            updated: the step changed masks.
            evaluated: the network is evaluated after it.
            at_end: it was the last one.
        """
        return at_end or (evaluated if self.when == "evaluation" else updated)

    def measure(self, network: nn.Module, step: int) -> None:
        """Add a row for each masked weight that has a spectrum.

        Every process calls it: weights that are shared among processes are gathered.

        Args:
            network: with masks.
            step: steps taken.
        """
        for weight, experts in spectra(network).items():
            for i, spectrum in enumerate(experts):
                if spectrum is not None:
                    layer = weight if len(experts) == 1 else f"{weight}[{i}]"
                    self.rows.append({"step": str(step), "layer": layer, **_texts(spectrum)})

    def means(self) -> dict[str, float]:
        """Mean of each measure over the layers that have it, at the last measurement; NaN where none has."""
        last = [
            row for row in self.rows if row["step"] == self.rows[-1]["step"]
        ]  # none, where there are no rows
        return {name: _mean([float(row[name]) for row in last if row[name]]) for name in MEASURES}

    def write(self) -> None:
        """Write the whole file."""
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_text(text.getvalue(), str(self.path))

    def resume(self, step: int) -> None:
        """Continue after a step; rows of later steps are dropped.

        Raises:
            InputError: the file is not the table that a run writes.
        """
        rows = csv_rows(read_text(str(self.path)), str(self.path), COLUMNS) if self.path.exists() else []
        self.rows = [row for row in rows if int(row["step"]) <= step]


def _texts(spectrum: Spectrum) -> dict[str, str]:
    found = {"sigma1": spectrum.graph.first, "sigma2": spectrum.graph.second, **spectrum.measures()}
    # iterations round the last bits as memory happens to lie; a resumed run is to have the same table
    return {name: "" if value is None else f"{value:.6f}" for name, value in found.items()}


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else float("nan")
