"""The sparse scaling law for people: what it advises, and what other sparsities would reach."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace

from iftplan.base.documents import Document, with_digest
from iftplan.base.errors import InputError
from iftplan.base.units import abbreviate
from iftplan.report.display import Displayed
from iftplan.report.table import Table
from iftplan.runs.laws.advice.answer import fit_table, fitted_document
from iftplan.runs.laws.fitting.fit import LawFit, middle
from iftplan.runs.laws.law import Law
from iftplan.runs.laws.sparse import ScalingLaw, from_law

COMPARED = (0.0, 0.5, 0.75, 0.875)
"""The sparsities of the law's own runs."""


@dataclass(frozen=True, slots=True)
class Advice(Displayed):
    """A question to the law.

    Attributes:
        law: which fit; a `Law` is taken in units of one.
        params: non-zero parameters without embeddings.
        compute: of the training, in FLOPs, two for each MAC.
        kappa: cost of a step of the network with all its weights over that of a sparse step; 1 where sparsity saves nothing.
        fit: the fit to runs of one's own that the law's constants are of; None for published ones.
    """

    law: ScalingLaw
    params: float
    compute: float
    kappa: float = 1.0
    fit: LawFit | None = None

    def __post_init__(self) -> None:
        """Take a law by its equation as the sparse law that it is."""
        if isinstance(self.law, Law):
            object.__setattr__(self, "law", from_law(self.law))

    def tables(self) -> tuple[Table, ...]:
        """The tables that show the value, the details first."""
        return (fit_table(self.fit), advice_table(self)) if self.fit else (advice_table(self),)

    @property
    def sparsity(self) -> float:
        """Best sparsity for the size and the compute, a fraction of 1."""
        return self.law.optimal_sparsity(self.params, self.compute, self.kappa)

    def notes(self) -> tuple[str, ...]:
        """Sentences on the limits of the answer."""
        best = self.sparsity
        said = self.law.notes(best, self.params, self.law.data(best, self.params, self.compute, self.kappa))
        return (*self._interval(), *said)

    def _interval(self) -> tuple[str, ...]:
        """Where the best sparsity lies in the fits to resampled runs."""
        if self.fit is None or not self.fit.samples:
            return ()
        found = []
        for constants in self.fit.samples:
            with suppress(InputError, OverflowError):
                law = from_law(replace(self.fit.law, constants=constants))
                found.append(law.optimal_sparsity(self.params, self.compute, self.kappa))
        if not found:
            return ("no fit to resampled runs has a best sparsity, so the runs do not determine it",)
        low, high = middle(sorted(found))
        of = (
            f", of {len(self.fit.samples)} of which {len(found)} have one"
            if len(found) < len(self.fit.samples)
            else ""
        )
        return (
            f"95 % of the fits to resampled runs{of} have their best sparsity from {low:.3f} to {high:.3f}",
        )


def advice_table(asked: Advice) -> Table:
    """Best sparsity and its neighbours: data, loss, and the compute from which on each would be best."""
    law, best = asked.law, asked.sparsity
    rows = tuple(
        (
            f"{sparsity:.4f}" + (" (best)" if sparsity == best else ""),
            abbreviate(asked.params / (1 - sparsity)),
            abbreviate(law.data(sparsity, asked.params, asked.compute, asked.kappa)),
            f"{law.loss_at(sparsity, asked.params, asked.compute, asked.kappa):.4f}",
            f"{law.compute_for(sparsity, asked.params, asked.kappa):.3g}",
        )
        for sparsity in sorted({*COMPARED, best})
    )
    columns = (">sparsity", ">all weights", f">{law.unit} seen", ">loss", ">best at FLOPs")
    title = f"{law.name}: {abbreviate(asked.params)} non-zero parameters, {asked.compute:.3g} FLOPs of training, κ = {asked.kappa:g}"
    return Table(columns, rows, title, tuple(f"note: {note}" for note in asked.notes()))


def advice_records(asked: Advice, document: Document) -> list[dict[str, float]]:
    """A row for each sparsity, the data in the law's unit.

    Args:
        asked: the question.
        document: its answer.
    """
    return [
        {f"{key}_{asked.law.unit}" if key == "data_seen" else key: value for key, value in row.items()}
        for row in document["sparsities"]
    ]


def advice_document(name: str, asked: Advice) -> Document:
    """The answer as a JSON object, sealed with its digest."""
    law = asked.law
    return with_digest(
        {
            "schema": "iftplan.advise/1",
            "convention": "flop",
            "data": name,
            "params": asked.params,
            "compute": asked.compute,
            "kappa": asked.kappa,
            "optimal_sparsity": asked.sparsity,
            "sparsities": [
                {
                    "sparsity": s,
                    "data_seen": law.data(s, asked.params, asked.compute, asked.kappa),
                    "loss": law.loss_at(s, asked.params, asked.compute, asked.kappa),
                    "optimal_compute": law.compute_for(s, asked.params, asked.kappa),
                }
                for s in sorted({*COMPARED, asked.sparsity})
            ],
            "notes": list(asked.notes()),
            **({"fitted": fitted_document(asked.fit)} if asked.fit else {}),
        }
    )
