"""What a model costs as data: between processes, in the cache and in baselines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import ConfigDict, with_config
from typing_extensions import TypedDict

from iftplan.base.documents import Document, check, repeated, sealed
from iftplan.base.errors import InputError
from iftplan.base.validation import validated
from iftplan.checks.findings import Measured
from iftplan.plans.audit.diff import Ledger

SCHEMA = "iftplan.measured/1"
BASELINE_SCHEMA = "iftplan.baseline/1"


def measured_document(measured: Measured) -> Document:
    """The measurement as a JSON object, sealed with its digest; layers keep their order."""
    return sealed(
        {
            "schema": SCHEMA,
            "convention": "mac",
            "layers": _rows(measured),
            "elementwise": dict(measured.elementwise),
            "unknown_ops": dict(measured.unknown_ops),
            "uncalled_modules": list(measured.uncalled_modules),
            "assumptions": list(measured.assumptions),
        }
    )


def parse_measured(document: Document, where: str = "measurement") -> Measured:
    """A measurement from its document.

    Raises:
        InputError: names the path inside the document.
    """
    check(document, SCHEMA, where)
    parsed = validated(_MeasuredObject, document, where)
    for key in ("elementwise", "unknown_ops"):
        for name, value in parsed[key].items():
            if value < 0:
                raise InputError(f"{where}: {key}.{name} is {value}, and no count is negative.")
    _check_rows(parsed["layers"], where, "")
    return Measured(
        macs={row["name"]: row["macs"] for row in parsed["layers"] if row["macs"] is not None},
        parameters={
            row["name"]: row["parameters"] for row in parsed["layers"] if row["parameters"] is not None
        },
        elementwise=parsed["elementwise"],
        unknown_ops=parsed["unknown_ops"],
        uncalled_modules=tuple(parsed["uncalled_modules"]),
        assumptions=tuple(parsed["assumptions"]),
    )


@dataclass(frozen=True, slots=True)
class Baseline:
    """What models cost when somebody said that this is what they should cost.

    Attributes:
        name: a file's name or a git revision.
        models: model → MACs and parameters by layer.
        inputs: model → the inputs it was measured with.
        saved: whether somebody saved it, rather than it being what a revision happens to cost.
    """

    name: str
    models: Mapping[str, Measured]
    inputs: Mapping[str, tuple[str, ...]]
    saved: bool = True

    def macs(self, model: str) -> Ledger:
        """The MACs of a model by layer; nothing for a model that it does not have."""
        found = self.models.get(model)
        return Ledger(self.name, found.macs if found else {})

    def parameters(self, model: str) -> Ledger:
        """The parameters of a model by module; nothing for a model that it does not have."""
        found = self.models.get(model)
        return Ledger(self.name, found.parameters if found else {})


def baseline_document(baseline: Baseline) -> Document:
    """The baseline as a JSON object, sealed with its digest."""
    return sealed(
        {
            "schema": BASELINE_SCHEMA,
            "convention": "mac",
            "models": {
                name: {
                    "inputs": list(baseline.inputs.get(name, ())),
                    "macs": measured.total_macs,
                    "parameters": measured.total_parameters,
                    "layers": _rows(measured),
                }
                for name, measured in baseline.models.items()
            },
        }
    )


def parse_baseline(document: Document, where: str) -> Baseline:
    """A baseline from its document; totals are added up again from the layers.

    Raises:
        InputError: names the path inside the document.
    """
    check(document, BASELINE_SCHEMA, where)
    parsed = validated(_BaselineObject, document, where)["models"]
    for name, model in parsed.items():
        _check_rows(model["layers"], where, f"models.{name}.")
        for key in ("macs", "parameters"):
            total = sum(row[key] or 0 for row in model["layers"])
            if model[key] != total:
                raise InputError(
                    f"{where}: models.{name}.{key} is {model[key]}, and its layers make {total}; save the baseline again rather than editing it."
                )
    models = {
        name: Measured(
            {row["name"]: row["macs"] for row in model["layers"] if row["macs"] is not None},
            {row["name"]: row["parameters"] for row in model["layers"] if row["parameters"] is not None},
        )
        for name, model in parsed.items()
    }
    return Baseline(where, models, {name: tuple(model["inputs"]) for name, model in parsed.items()})


def _check_rows(rows: Sequence[_RowObject], where: str, path: str) -> None:
    """A layer is there once, and no count is negative."""
    for problem in repeated(f"{path}layers", (row["name"] for row in rows)):
        raise InputError(f"{where}: {problem}.")
    for i, row in enumerate(rows):
        for key in ("macs", "parameters"):
            if (row[key] or 0) < 0:
                raise InputError(f"{where}: {path}layers.{i}.{key} is {row[key]}, and no count is negative.")


def _rows(measured: Measured) -> list[Document]:
    names = dict.fromkeys((*measured.macs, *measured.parameters))
    return [
        {"name": name, "macs": measured.macs.get(name), "parameters": measured.parameters.get(name)}
        for name in names
    ]


@with_config(ConfigDict(extra="forbid"))
class _RowObject(TypedDict):
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
    layers: list[_RowObject]
    elementwise: dict[str, int]
    unknown_ops: dict[str, int]
    uncalled_modules: list[str]
    assumptions: list[str]
    digest: str


@with_config(ConfigDict(extra="forbid"))
class _ModelObject(TypedDict):
    """One model of a baseline.

    Attributes:
        inputs: the inputs it was measured with.
        macs: the sum over its layers.
        parameters: the sum over its layers.
        layers: a row for each layer.
    """

    inputs: list[str]
    macs: int
    parameters: int
    layers: list[_RowObject]


@with_config(ConfigDict(extra="forbid"))
class _BaselineObject(TypedDict):
    """A baseline as it is written; totals are added up again when it is read.

    Attributes:
        schema: kind and version.
        convention: what counts are in.
        models: name in the configuration → what it costs.
        digest: SHA-256 of everything else, in canonical form.
    """

    schema: str
    convention: Literal["mac"]
    models: dict[str, _ModelObject]
    digest: str
