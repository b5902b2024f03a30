"""A table of the paper beside runs of one's own, for people and for machines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from iftplan.base.documents import Document
from iftplan.base.units import decimal_text
from iftplan.report.table import Table
from iftplan.runs.results.published.document import published_record, sealed_entry
from iftplan.runs.results.published.entries import PaperEntry
from iftplan.runs.results.published.tables import entry_title, family_name
from iftplan.runs.sweeps.reproduction import Mean, ReproducedRow


def reproduction_table(entry: PaperEntry, rows: Sequence[ReproducedRow]) -> Table:
    """One table of the paper beside runs of one's own: means over seeds with standard errors.

    Args:
        entry: the table.
        rows: what came of its runs.
    """
    many = len({row.published.model for row in rows}) > 1
    failed = any(row.outcome for row in rows)
    dense = {
        (r.published.task, r.published.model): r.published.value
        for r in rows
        if r.published.transform == "dense"
    }
    cells = []
    for row in rows:
        found, scale = row.published, 100 if row.metric == "accuracy" else 1
        control = dense.get((found.task, found.model))
        cells.append(
            (
                *((found.model,) if many else ()),
                family_name(found.transform, found.nonlinear, found.mask),
                found.method,
                decimal_text(found.sparsity),
                f"{found.value:.4g}",
                "" if control is None or found.transform == "dense" else f"{found.value - control:+.3g}",
                mean_text(row.found, scale),
                mean_text(row.against_dense, scale, signed=True),
                "" if row.found is None else str(row.found.seeds),
                "" if row.train_ratio is None else f"{row.train_ratio:.4f}×",
                *((row.outcome,) if failed else ()),
            )
        )
    metric = next((row.metric for row in rows if row.metric), "metric")
    columns = (
        *(("model",) if many else ()), "family", "method", ">sparsity", f">published {rows[0].published.metric}",
        ">against dense", f">{metric} here{' (%)' if metric == 'accuracy' else ''}", ">against dense here", ">seeds",
        ">training MACs", *(("not trained because",) if failed else ()),
    )  # fmt: skip
    models = ", ".join(dict.fromkeys(row.model for row in rows))
    notes = (
        f"here: {models}; mean ± standard error over seeds, differences seed by seed. Compare differences with "
        "differences: networks, data and lengths are not the paper's unless the recipe is",
    )
    return Table(columns, tuple(cells), entry_title(entry), notes)


def mean_text(found: Mean | None, scale: int = 1, *, signed: bool = False) -> str:
    """A mean with its standard error, as people read it; empty for none.

    Args:
        found: the mean.
        scale: 100 for percent.
        signed: whether a plus sign stands before it.

    Example:
        >>> mean_text(Mean(0.625, 0.0025, 5), 100)
        '62.50 ± 0.25'
    """
    if found is None:
        return ""
    value = f"{found.value * scale:+.2f}" if signed else f"{found.value * scale:.2f}"
    return value if found.error is None else f"{value} ± {found.error * scale:.2f}"


def reproduction_document(entry: PaperEntry, rows: Sequence[ReproducedRow]) -> Document:
    """One table beside runs of one's own.

    Args:
        entry: the table.
        rows: what came of its runs.
    """
    return sealed_entry(
        entry,
        [
            {
                **published_record(row.published),
                "here_metric": row.metric,
                **_mean("here", row.found),
                **_mean("here_against_dense", row.against_dense),
                "train_ratio": row.train_ratio,
                "outcome": row.outcome,
            }
            for row in rows
        ],
        (),
    )


def _mean(name: str, found: Mean | None) -> dict[str, Any]:
    return {
        name: None if found is None else found.value,
        f"{name}_error": None if found is None else found.error,
        f"{name}_seeds": 0 if found is None else found.seeds,
    }
