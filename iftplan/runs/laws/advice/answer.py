"""What a law answers: rows of choices with the loss of each, the best of them, and what a reader has to know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from iftplan.base.documents import Document, with_digest
from iftplan.base.units import abbreviate
from iftplan.report.display import Displayed, Framed, Record
from iftplan.report.table import Table
from iftplan.runs.laws.fitting.fit import LawFit
from iftplan.runs.laws.law import Law

_HEADINGS: Mapping[str, str] = {
    "compute": "FLOPs of training",
    "sparsity": "sparsity",
    "experts": "experts",
    "granularity": "granularity",
    "average_density": "average density",
    "params": "parameters",
    "active_params": "active",
    "total_params": "in all",
    "first_params": "at first",
    "final_params": "at the end",
    "dense_params": "dense equivalent",
    "memory": "memory (numbers)",
    "data": "tokens",
    "loss": "loss",
    "loss_low": "low",
    "loss_high": "high",
    "activation_ratio": "activation ratio",
    "activation_ratio_low": "low",
    "activation_ratio_high": "high",
}
"""Key → heading of its column."""


@dataclass(frozen=True, slots=True)
class LawAnswer(Displayed, Framed):
    """Answer of a law: choices with the loss of each.

    Attributes:
        law: that was asked.
        asked: what it was asked, by name.
        rows: choices, each with the same keys.
        best: which row has the least loss; None where rows are not rivals.
        notes: sentences that a reader has to know.
        fit: the fit to runs of one's own that the law's constants are of; None for published ones.
    """

    law: Law
    asked: Mapping[str, float]
    rows: tuple[Mapping[str, float], ...]
    best: int | None
    notes: tuple[str, ...]
    fit: LawFit | None = None

    def tables(self) -> tuple[Table, ...]:
        """The tables that show the value, the details first."""
        answer = answer_table(self)
        return (fit_table(self.fit), answer) if self.fit else (answer,)

    def records(self) -> tuple[Record, ...]:
        """The rows, and of each whether it is the best."""
        return tuple({**row, "best": i == self.best} for i, row in enumerate(self.rows))


def answer_table(answer: LawAnswer) -> Table:
    """Choices and their losses, one a row."""
    keys = tuple(answer.rows[0])
    rows = tuple(
        tuple(
            _cell(key, row[key]) + (" (best)" if i == answer.best and j == 0 else "")
            for j, key in enumerate(keys)
        )
        for i, row in enumerate(answer.rows)
    )
    given = ", ".join(f"{_ASKED[name]} {_cell(name, value)}" for name, value in answer.asked.items())
    return Table(
        tuple(f">{_HEADINGS[key]}" for key in keys),
        rows,
        f"{answer.law.title}: {given}" if given else answer.law.title,
        (
            f"law: {answer.law.equation} ({answer.law.source})",
            *(f"note: {note}" for note in answer.notes),
        ),
    )


_ASKED = {
    "params": "parameters",
    "compute": "FLOPs",
    "memory": "numbers in memory",
    "context": "context tokens",
    "served": "inference tokens",
    "tokens": "tokens",
}


def _cell(key: str, value: float) -> str:
    if key in ("experts", "granularity"):
        return f"{value:g}"
    if key == "compute":
        return f"{value:.3g}"
    return abbreviate(value) if value >= 1000 else f"{value:.4f}"


def fit_table(fit: LawFit) -> Table:
    """Constants of a fit with their 95 % intervals."""
    rows = tuple(
        (name, f"{value:.5g}", *(f"{end:.4g}" for end in fit.intervals.get(name, ())))
        for name, value in fit.law.constants.items()
    )
    ends = (">2.5 %", ">97.5 %") if fit.intervals else ()
    error = f"{fit.error:.3%} of the {fit.law.result}" if fit.settings.log else f"{fit.error:.4g}"
    return Table(
        ("constant", ">fitted", *ends),
        rows,
        f"{fit.law.name}: fitted to {fit.runs} runs",
        (
            f"law: {fit.law.equation}",
            f"note: root mean square of the residuals: {error}",
            *(
                (
                    f"note: intervals hold 95 % of the fits to {len(fit.samples)} samples of the runs, drawn with repetition",
                )
                if fit.intervals
                else ()
            ),
        ),
    )


def answer_document(fit_name: str, answer: LawAnswer) -> Document:
    """The answer as a JSON object, sealed with its digest.

    Args:
        fit_name: the published fit, or the table of runs.
        answer: what was answered.
    """
    law = answer.law
    fitted = {"fitted": fitted_document(answer.fit)} if answer.fit else {}
    return with_digest(
        {
            "schema": "iftplan.law/1",
            "convention": "flop",
            "law": law.name,
            "data": fit_name,
            "title": law.title,
            "source": law.source,
            "equation": law.equation,
            "constants": dict(law.constants),
            "asked": dict(answer.asked),
            "rows": [dict(row) for row in answer.records()],
            "notes": list(answer.notes),
            **fitted,
        }
    )


def fitted_document(fit: LawFit) -> Document:
    """A fit as a JSON object, a part of an answer."""
    return {
        "runs": fit.runs,
        "equation": fit.law.equation,
        "constants": dict(fit.law.constants),
        "intervals": {name: list(ends) for name, ends in fit.intervals.items()},
        "units": {v.name: v.unit for v in fit.law.variables},
        "error": fit.error,
        "relative": fit.settings.log,
        "delta": fit.settings.delta,
        "resamples": fit.settings.resamples,
    }
