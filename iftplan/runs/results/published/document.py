"""The paper's tables as documents: published values and iftplan's, a row each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from fractions import Fraction
from typing import Any

from iftplan.base.documents import Document, with_digest
from iftplan.base.units import fraction
from iftplan.families.tables import structure_text
from iftplan.models.spec import ModelSpec
from iftplan.plans.plan import Scope
from iftplan.report.table import Table
from iftplan.runs.results.published.arithmetic import PaperRow, paper_rows
from iftplan.runs.results.published.cardinality import LAYER, CardinalityRow, cardinality_rows
from iftplan.runs.results.published.entries import PAPER, Arithmetic, PaperEntry
from iftplan.runs.results.published.language import sizings, training_rows
from iftplan.runs.results.published.results import PublishedResult
from iftplan.runs.results.published.settings import setting_rows
from iftplan.runs.results.published.speed import speed_rows
from iftplan.runs.results.published.tables import WidthRounding, plan_rounding


def contents_document() -> Document:
    """Every table and figure of the paper."""
    rows = [
        {"name": e.name, "title": e.title, "values": len(e.results()), "arithmetic": e.arithmetic.value}
        for e in PAPER.values()
    ]
    return with_digest({"schema": "iftplan.paper/1", "source": "arXiv 2303.11525", "entries": rows})


def entry_document(
    entry: PaperEntry, read: Callable[[str], ModelSpec], table: Table, rounding: WidthRounding | None = None
) -> Document:
    """One table or figure.

    Args:
        entry: the table or figure.
        read: a source to its spec, with widths.
        table: of the same entry, whose notes the document has too.
        rounding: of widths, as the table has it.
    """
    match entry.arithmetic:
        case Arithmetic.RESULTS:
            rows = [_row(row) for row in paper_rows(entry, read, plan_rounding(rounding))]
        case Arithmetic.SETTINGS:
            rows = [asdict(row) for row in setting_rows(entry.name)]
        case Arithmetic.WIDTHS:
            sizes = (s for s in sizings(read) if rounding is None or not s.sparsity or s.rounding == rounding)
            rows = [_plain(asdict(row)) for row in sizes]
        case Arithmetic.TRAINING:
            rows = [
                _plain({**asdict(row), "sequences": row.sequences})
                for row in training_rows(read, "floor" if rounding == "floor" else "published")
            ]
        case Arithmetic.SPEED:
            rows = [_plain(asdict(row)) for row in speed_rows(read)]
        case Arithmetic.CARDINALITY:
            rows = [_cardinality(row) for row in cardinality_rows()]
        case _:
            rows = []
    return sealed_entry(entry, rows, table.notes)


def sealed_entry(entry: PaperEntry, rows: Sequence[dict[str, Any]], notes: Sequence[str]) -> Document:
    """Document of a table or figure, with its digest.

    Args:
        entry: the table or figure.
        rows: a record for each published value.
        notes: sentences below them.
    """
    return with_digest(
        {
            "schema": "iftplan.paper/1",
            "convention": "mac",
            "source": "arXiv 2303.11525",
            "name": entry.name,
            "title": entry.title,
            "rows": list(rows),
            "notes": list(notes),
        }
    )


def published_record(found: PublishedResult) -> dict[str, Any]:
    """Published value as a record."""
    return {
        "table": found.table,
        "task": found.task,
        "model": found.model,
        "transform": found.transform,
        "method": found.method,
        "nonlinear": found.nonlinear,
        "sparsity": float(found.sparsity),
        "structure": found.mask,
        "metric": found.metric,
        "published": found.value,
        "published_error": found.std,
    }


def _row(row: PaperRow) -> dict[str, Any]:
    found, counted = published_record(row.published), row.counted
    found["published_against_dense"] = row.against_dense
    if counted is None:
        return found
    plan = counted.plan
    return {
        **found,
        "zoo_model": counted.setting.model,
        "recipe": counted.setting.recipe,
        "scope": counted.setting.scope_name,
        "size": counted.size,
        "macs": plan.macs(Scope.MODEL),
        "dense_macs": plan.dense_macs(Scope.MODEL),
        "scope_macs": plan.macs(counted.setting.scope),
        "dense_scope_macs": plan.dense_macs(counted.setting.scope),
        "maskable_weights": plan.cardinality.maskable_weights,
        "log2_masks": plan.cardinality.log2_masks,
        "train_macs": counted.train_macs,
        "dense_train_macs": counted.dense_train_macs,
    }


def _cardinality(row: CardinalityRow) -> dict[str, Any]:
    found = row.solution
    return {
        "transform": row.family,
        "formula": row.formula,
        "closed_form": found.closed_form,
        "layer": LAYER,
        "sparsity": float(found.sparsity),
        "structure": structure_text(found),
        "maskable_weights": found.capacity,
        "macs": found.macs,
        "dense_macs": found.dense_macs,
    }


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """The record with floats for fractions, and each fraction itself under its key with `_exact`."""
    exact = {f"{key}_exact": fraction(value) for key, value in row.items() if isinstance(value, Fraction)}
    return {key: float(value) if isinstance(value, Fraction) else value for key, value in row.items()} | exact
