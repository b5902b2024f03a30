"""Documents as rows of plain values, for spreadsheets and data frames: one row a thing.

Headings are the keys of the JSON document, joined by `_` where one lies in another, with a unit where the key has none.
Numbers are written as Python writes them: no separators, no units in cells, nothing where there is no number.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from iftplan.base.documents import Document
from iftplan.report.table import printable

Record = Mapping[str, Any]

_CONTAINERS = ("cardinality", "structure", "layer")  # whose keys stand for themselves
_UNITS = {
    "difference": "macs",
    "log2_masks": "bits",
    "optimal_compute": "flops",
}  # of keys that do not end in theirs
_LEFT_OUT = ("_exact", "_latex")  # the same as beside it, in a form that is no number


def document_records(document: Document) -> list[Record] | None:
    """A row for each thing that a document is about; None where it is no list of things."""
    kind = str(document.get("schema", "")).removeprefix("iftplan.").partition("/")[0]
    match kind:
        case "solve":
            return [
                {"layer": layer["layer"], **solution}
                for layer in document["layers"]
                for solution in layer["solutions"]
            ]
        case "plan" | "audit" | "diff":
            return [_named(layer) for layer in document["layers"]]
        case "check":
            return [_checked(model) for model in document["models"]]
        case "pruning":
            return list(document["points"])
        case "pareto":
            return [_point(point, document) for point in document["points"]]
        case "bench":
            return list(_timed(document))
        case "profile":
            return list(document["entries"])
        case "models":
            return [_named(model) for model in document["models"]]
    return None


def records_csv(records: Sequence[Record], convention: str = "mac") -> str:
    """Comma-separated values with a heading.

    Args:
        records: the rows; a mapping in one becomes columns of its own, a list of words one cell.
        convention: what counts of MACs are given in; in FLOPs, headings say so.
    """
    rows = [dict(_flat(record)) for record in records]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    headings = [_heading(name, convention) for name in columns]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(headings)
    writer.writerows([_cell(row.get(name)) for name in columns] for row in rows)
    return out.getvalue()


def _flat(record: Record, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in record.items():
        name = f"{prefix}{key}"
        if name.endswith(_LEFT_OUT):
            continue
        if isinstance(value, Mapping):
            yield from _flat(value, "" if key in _CONTAINERS else f"{name}_")
        elif not isinstance(value, list):
            yield name, value
        elif all(isinstance(part, str) for part in value):
            yield name, " ".join(value)
        elif all(isinstance(part, int) for part in value):
            yield name, "x".join(map(str, value))


def _heading(name: str, convention: str) -> str:
    words = [*name.split("_"), *filter(None, [_UNITS.get(name)])]
    return "_".join("flops" if word == "macs" and convention == "flop" else word for word in words)


def _cell(value: object) -> str:
    if value is None:
        return ""
    return repr(value) if isinstance(value, float) else printable(str(value))


def _without(record: Record, *keys: str) -> Record:
    return {key: value for key, value in record.items() if key not in keys}


def _named(record: Record) -> Record:
    """The name first."""
    return {"name": record["name"], **_without(record, "name")}


def _checked(model: Record) -> Record:
    """What a model costs, each line of its budget, and what changed."""
    keys = ("name", "status", "source", "inputs", "measured_macs", "parameters")
    limits = {
        "_".join((*limit["quantity"].lower().split(), *filter(None, [limit["reference"]]))): {
            "allowed": _number(limit["allowed"]),
            "deviation": limit["deviation"],
        }
        for limit in model["limits"]
    }
    drift = {
        quantity: {key: changed[key] for key in ("base", "difference")}
        for quantity, changed in (model["drift"] or {}).items()
    }
    return {
        **{key: model[key] for key in keys},
        "limits": limits,
        "drift": drift,
        "problems": model["problems"],
    }


def _point(point: Record, document: Document) -> Record:
    """Both axes with what they show and its unit."""
    named: dict[str, str] = {}
    for axis in ("x", "y"):
        shown = " ".join(filter(None, (document[axis]["name"], document[axis]["unit"])))
        title = re.sub(r"\W+", "_", shown.lower()).strip("_")
        named |= {axis: f"{axis}_{title}", f"{axis}_error": f"{axis}_error_{title}"}
    return {named.get(key, key): value for key, value in point.items()}


def _number(value: float) -> int | float:
    return int(value) if value.is_integer() else value


def _timed(document: Document) -> Iterator[Record]:
    for layer in document["layers"]:
        shared = _without(layer, "timings", "left_out")
        for timing in layer.get("timings", [{}]):
            yield {**shared, **timing}
