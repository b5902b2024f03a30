"""Runs that a law is fitted to: a table with a column for each of its variables and one for the loss, or run directories."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from iftplan.base.documents import csv_rows, loads, read_text
from iftplan.base.errors import InputError
from iftplan.runs.laws.law import Law

_RECORDED: Mapping[str, str] = {"sparsity": "sparsity", "params": "nnz", "data": "samples"}
"""Variable of a law → key of `result.json`."""
_LOSSES = ("validation_loss", "test_loss")
"""Keys of `result.json` that a loss is read from, the first that is there."""


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
    """Runs of a CSV table or of a folder of run directories.

    A table has a column for each of the law's variables and one for what the law gives. Of a run that iftplan trained, params are its non-zero weights under masks, data the samples that it saw, and the loss
    is the one of validation data, or else of test data.

    Raises:
        InputError: no such runs, a column that is missing, or a cell that is no number the variable can have.
    """
    result = result_column(law)
    if Path(path).is_dir():
        return _checked(law, _of_directories(Path(path), law), path)
    rows = csv_rows(read_text(path), path, (*(v.name for v in law.variables), result))
    numbers = [
        {
            name: _number(row[name], name, f"{path}, row {i}")
            for name in (*(v.name for v in law.variables), result)
        }
        for i, row in enumerate(rows, start=1)
    ]
    return _checked(law, {f"{path}, row {i}": row for i, row in enumerate(numbers, start=1)}, path)


def _of_directories(path: Path, law: Law) -> dict[str, dict[str, float]]:
    from iftplan.runs.records import parse_result  # with pydantic, which no other answer needs
    from iftplan.runs.results.reading import run_directories

    unheard = [v.name for v in law.variables if v.name not in _RECORDED]
    if unheard or law.result != "loss":
        raise InputError(
            f"run directories do not say the {', '.join(unheard) or law.result} of the law {law.name}; give a CSV table with the "
            f"columns {', '.join((*(v.name for v in law.variables), result_column(law)))}."
        )
    found = {}
    for directory in run_directories(path):
        file = str(directory / "result.json")
        document = parse_result(loads(read_text(file), file), file)
        loss = next((document[key] for key in _LOSSES if document.get(key) is not None), None)
        given: dict[str, Any] = {name: document.get(key) for name, key in _RECORDED.items()} | {"loss": loss}
        given |= {"data": _seen(document, directory), "params": document.get("nnz")}
        if not given["params"]:  # no masks: all weights were trained, whatever the plan's sparsity
            opened = document.get("method") == "densified"
            given |= {"params": _maskable(directory, widened=opened), "sparsity": 0.0}
        if missing := [name for name, value in given.items() if value is None]:
            raise InputError(f"{file} does not say its {', '.join(missing)}; leave the run out.")
        found[file] = {name: float(given[name]) for name in (*(v.name for v in law.variables), "loss")}
    return found


def _seen(document: Mapping[str, Any], directory: Path) -> int | None:
    """Samples that a run saw, of text the tokens."""
    samples: int | None = document.get("samples")
    if samples is None or document.get("metric_name") != "perplexity":
        return samples
    from iftplan.runs.records import parse_record
    from iftplan.runs.settings import DataConfig

    file = str(directory / "run.json")
    settings = parse_record(loads(read_text(file), file), file).get("config", {}).get("data", {})
    return samples * int(settings.get("context", DataConfig().context))


def _maskable(directory: Path, *, widened: bool) -> int | None:
    """Weights that the plan of a run masks, of its own layers or of the dense model's; None without a plan."""
    from iftplan.plans.document.plan import parse_plan

    file = directory / "plan.json"
    if not file.is_file():
        return None
    plan = parse_plan(loads(read_text(str(file)), str(file)), str(file))
    masked = [layer for layer in plan.layers if layer.maskable]
    if widened:
        return sum(layer.capacity for layer in masked) or None
    return sum(layer.before.weights for layer in masked if layer.before) or None


def _checked(law: Law, rows: Mapping[str, Mapping[str, float]], path: str) -> LawRuns:
    """The rows as runs.

    Args:
        law: whose variables they have.
        rows: by where each is from.
        path: of them all.

    Raises:
        InputError: a value that its variable cannot have, or no rows.
    """
    result = result_column(law)
    if not rows:
        raise InputError(f"{path} has no runs; give a row for each.")
    for where, row in rows.items():
        for variable in law.variables:
            try:
                variable.check(row[variable.name])
            except InputError as error:
                raise InputError(f"{where}: {error}") from error
        if row[result] <= 0:
            raise InputError(f"{where}: {result} is {row[result]:g}; it must be above 0.")
    return LawRuns(
        {v.name: tuple(row[v.name] for row in rows.values()) for v in law.variables},
        tuple(row[result] for row in rows.values()),
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
