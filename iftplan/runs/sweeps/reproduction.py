"""Runs of one's own for each row of a paper's table, and what came of them beside the published values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from iftplan.base.errors import InputError
from iftplan.base.units import fraction
from iftplan.runs.methods import METHODS
from iftplan.runs.results.published.entries import PaperEntry
from iftplan.runs.results.published.results import PublishedResult
from iftplan.runs.settings import RunConfig
from iftplan.runs.sweeps.grid import TRAINED, GridPoint, run_name, run_of

_METHODS = {"transposable-nm": "transposable"}
"""Published method → the name that it has here, where the two differ."""


@dataclass(frozen=True, slots=True)
class RowRuns:
    """Runs that stand for a published row.

    Attributes:
        published: the row.
        runs: seed → run.
    """

    published: PublishedResult
    runs: Mapping[int, RunConfig]


def row_runs(
    entry: PaperEntry, base: Callable[[PublishedResult], RunConfig], seeds: Sequence[int], model: str = ""
) -> tuple[RowRuns, ...]:
    """Runs for the rows of a table.

    Args:
        entry: a table of results.
        base: settings of a row's runs, but for family, sparsity, structure, method and seed.
        seeds: a run each.
        model: rows of this published model alone; all rows where empty.

    Raises:
        InputError: the table has no rows that can be trained; says why.
    """
    results = [r for r in entry.results() if not model or r.model == model]
    if not results:
        raise InputError(f"{entry.name} has no results that can be trained; table2 and others have.")
    if not entry.can_be_trained and all(_method(result) in METHODS for result in results):
        raise InputError(
            f"{entry.name} reports {', '.join(dict.fromkeys(r.metric for r in results))} on {results[0].task}, whose data and heads "
            "iftplan has no recipe for; its classifiers are in table6."
        )
    for result in results:
        if _method(result) not in METHODS:
            raise InputError(
                f"{entry.name} has the method {result.method}, which is two runs: a sparse one, and another that starts from its "
                "checkpoint. Train them with iftplan train, the second one with start.checkpoint."
            )
    return tuple(RowRuns(r, {seed: _run(r, base(r), seed) for seed in seeds}) for r in results)


def _method(result: PublishedResult) -> str:
    if result.method == "dense" and result.transform != "dense":
        return "densified"
    return _METHODS.get(result.method, result.method)


def _run(result: PublishedResult, base: RunConfig, seed: int) -> RunConfig:
    asked = replace(
        base.plan,
        transform="none" if result.transform == "dense" else result.transform,
        sparsity=fraction(result.sparsity),
        mask=result.mask,
        nonlinear=base.plan.nonlinear if result.nonlinear is None else result.nonlinear,
    )
    return run_of(asked, base, _method(result), seed)


@dataclass(frozen=True, slots=True)
class Mean:
    """Mean over seeds.

    Attributes:
        value: the mean.
        error: its standard error s/√n; None for one seed.
        seeds: how many.
    """

    value: float
    error: float | None
    seeds: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Mean | None:
        """Mean of values; None where there is none."""
        from statistics import mean, stdev

        if not values:
            return None
        error = stdev(values) / len(values) ** 0.5 if len(values) > 1 else None
        return cls(mean(values), error, len(values))


@dataclass(frozen=True, slots=True)
class ReproducedRow:
    """Published row beside runs of one's own.

    Attributes:
        published: the row.
        metric: what the runs measured; empty where none has ended.
        found: mean of the runs.
        against_dense: mean difference to the dense run of the same seed; None for the dense row itself.
        train_ratio: training MACs over the dense model's; None where no run has ended.
        outcome: why runs are missing; empty where none is.
        model: that was trained.
    """

    published: PublishedResult
    metric: str
    found: Mean | None
    against_dense: Mean | None
    train_ratio: float | None
    outcome: str
    model: str = ""


def reproduced_rows(rows: Sequence[RowRuns], points: Mapping[str, GridPoint]) -> tuple[ReproducedRow, ...]:
    """Rows of a table with the means of their runs.

    Args:
        rows: the runs.
        points: run's name → its row.
    """
    dense = {
        (row.published.task, row.published.model, seed): point.value
        for row in rows
        if row.published.transform == "dense"
        for seed, point in _ended(row, points).items()
    }
    return tuple(_reproduced(row, points, dense) for row in rows)


def _ended(row: RowRuns, points: Mapping[str, GridPoint]) -> dict[int, GridPoint]:
    found = {seed: points[run_name(run)] for seed, run in row.runs.items()}
    return {seed: point for seed, point in found.items() if point.outcome == TRAINED}


def _reproduced(
    row: RowRuns, points: Mapping[str, GridPoint], dense: Mapping[tuple[str, str, int], float | None]
) -> ReproducedRow:
    published, ended = row.published, _ended(row, points)
    values = {seed: point.value for seed, point in ended.items() if point.value is not None}
    controls = {seed: dense.get((published.task, published.model, seed)) for seed in values}
    differences = [values[seed] - control for seed, control in controls.items() if control is not None]
    ratios = [
        p.train_macs / p.dense_train_macs for p in ended.values() if p.train_macs and p.dense_train_macs
    ]
    missing = [points[run_name(run)].outcome for seed, run in row.runs.items() if seed not in ended]
    return ReproducedRow(
        published,
        next((point.metric or "" for point in ended.values()), ""),
        Mean.of(list(values.values())),
        None if published.transform == "dense" else Mean.of(differences),
        sum(ratios) / len(ratios) if ratios else None,
        missing[0] if missing else "",
        next(iter(row.runs.values())).plan.model,
    )
