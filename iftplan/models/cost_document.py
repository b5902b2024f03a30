"""What a model costs as data: between processes, in the cache and, row by row, in baselines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import ConfigDict, with_config
from typing_extensions import TypedDict

from iftplan.base.documents import Document, check, duplicate_name, with_digest
from iftplan.base.errors import InputError
from iftplan.base.validation import validate
from iftplan.models.cost import ModelCost

SCHEMA = "iftplan.measured/1"


def measured_document(measured: ModelCost) -> Document:
    """The measurement as a JSON object, sealed with its digest; layers keep their order."""
    return with_digest(
        {
            "schema": SCHEMA,
            "convention": "mac",
            "layers": cost_rows(measured),
            "elementwise": dict(measured.elementwise),
            "unknown_ops": dict(measured.unknown_ops),
            "uncalled_modules": list(measured.uncalled_modules),
            "assumptions": list(measured.assumptions),
        }
    )


def parse_measured(document: Document, where: str = "measurement") -> ModelCost:
    """Measured cost from its document.

    Raises:
        InputError: names the path inside the document.
    """
    check(document, SCHEMA, where)
    parsed = validate(_MeasuredObject, document, where)
    for key in ("elementwise", "unknown_ops"):
        for name, value in parsed[key].items():
            if value < 0:
                raise InputError(f"{where}: {key}.{name} is {value}; a count cannot be negative.")
    check_rows(parsed["layers"], where, "")
    return ModelCost(
        macs={row["name"]: row["macs"] for row in parsed["layers"] if row["macs"] is not None},
        parameters={
            row["name"]: row["parameters"] for row in parsed["layers"] if row["parameters"] is not None
        },
        elementwise=parsed["elementwise"],
        unknown_ops=parsed["unknown_ops"],
        uncalled_modules=tuple(parsed["uncalled_modules"]),
        assumptions=tuple(parsed["assumptions"]),
    )


def check_rows(rows: Sequence[CostRowObject], where: str, path: str) -> None:
    """Refuse rows of which two have one name, or one a negative count.

    Args:
        rows: of layers and modules.
        where: the document, for messages.
        path: of the rows' owner inside the document, "" or ending in a dot.

    Raises:
        InputError: names the first such row.
    """
    for problem in duplicate_name(f"{path}layers", (row["name"] for row in rows)):
        raise InputError(f"{where}: {problem}.")
    for i, row in enumerate(rows):
        for key in ("macs", "parameters"):
            if (row[key] or 0) < 0:
                raise InputError(
                    f"{where}: {path}layers.{i}.{key} is {row[key]}; a count cannot be negative."
                )


def cost_rows(measured: ModelCost) -> list[Document]:
    """A row for each layer and each module with parameters, as measurements and baselines hold it."""
    names = dict.fromkeys((*measured.macs, *measured.parameters))
    return [
        {"name": name, "macs": measured.macs.get(name), "parameters": measured.parameters.get(name)}
        for name in names
    ]


@with_config(ConfigDict(extra="forbid"))
class CostRowObject(TypedDict):
    """One layer's cost.

    Attributes:
        name: the module's path, with the operator where it is a product of activations.
        macs: MACs of one forward pass; null where it contracts nothing.
        parameters: its own parameters; null where it has none.
    """

    name: str
    macs: int | None
    parameters: int | None


@with_config(ConfigDict(extra="forbid"))
class _MeasuredObject(TypedDict):
    """A measurement as it is written.

    Attributes:
        schema: kind and version.
        convention: what counts are in.
        layers: a row for each layer.
        elementwise: operator → output elements, for work that contracts nothing.
        unknown_ops: operator → calls, for operators without a formula.
        uncalled_modules: modules with weights that the pass never used.
        assumptions: what had to be assumed, one sentence each.
        digest: SHA-256 of everything else, in canonical form.
    """

    schema: str
    convention: Literal["mac"]
    layers: list[CostRowObject]
    elementwise: dict[str, int]
    unknown_ops: dict[str, int]
    uncalled_modules: list[str]
    assumptions: list[str]
    digest: str
