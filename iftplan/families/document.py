"""Solutions as a document: what `iftplan solve --format json` prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from iftplan.base.documents import Document, with_digest
from iftplan.base.units import Convention, fraction
from iftplan.families.solution import Solution

SCHEMA = "iftplan.solve/1"


def solve_document(
    solutions: Mapping[str, Sequence[Solution]], convention: Convention = Convention.MAC
) -> Document:
    """Layer → its solutions, as a JSON object sealed with its digest; with their steps if they have any."""
    layers = [
        {"layer": name, "solutions": [_object(s, convention) for s in found]}
        for name, found in solutions.items()
    ]
    return with_digest({"schema": SCHEMA, "convention": convention.value, "layers": layers})


def _object(s: Solution, convention: Convention) -> dict[str, Any]:
    def counted(macs: int | None) -> int | None:
        return None if macs is None else macs * convention.per_mac

    document: dict[str, Any] = {
        "transform": s.transform,
        "sparsity": float(s.sparsity),
        "sparsity_exact": fraction(s.sparsity),
        "closed_form": s.closed_form,
        "closed_form_latex": s.closed_form_latex,
        "search_space": s.search_space,
        "structure": dict(s.structure),
        "nnz": s.nnz,
        "capacity": s.capacity,
        "dense_weights": s.dense_weights,
        **({"reuse": float(s.reuse), "reuse_exact": fraction(s.reuse)} if s.reuse != 1 else {}),
        "density": None if s.density is None else float(s.density),
        "density_exact": None if s.density is None else fraction(s.density),
        "macs": counted(s.macs),
        "dense_macs": counted(s.dense_macs),
        "residual_macs": counted(s.residual_macs),
        "outcome": s.outcome.name.lower(),
        "reason": s.reason or s.outcome.value,
        "cardinality": {
            "maskable_weights": s.cardinality.maskable_weights,
            "log2_masks": s.cardinality.log2_masks,
        },
    }
    if s.steps:
        document["steps"] = [asdict(step) for step in s.steps]
    return document
