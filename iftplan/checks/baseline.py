"""Baselines: what models cost when somebody said that this is what they should cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import ConfigDict, with_config
from typing_extensions import TypedDict

from iftplan.base.documents import Document, check, with_digest
from iftplan.base.errors import InputError
from iftplan.base.validation import validate
from iftplan.models.cost import ModelCost
from iftplan.models.cost_document import CostRowObject, check_rows, cost_rows
from iftplan.plans.audit.diff import LayerCosts

BASELINE_SCHEMA = "iftplan.baseline/1"


@dataclass(frozen=True, slots=True)
class Baseline:
    """Accepted costs of models, with which later checks compare.

    Attributes:
        name: a file's name or a git revision.
        models: model → MACs and parameters by layer.
        inputs: model → the inputs it was measured with.
        saved: whether somebody saved it, rather than it being what a revision happens to cost.
    """

    name: str
    models: Mapping[str, ModelCost]
    inputs: Mapping[str, tuple[str, ...]]
    saved: bool = True

    def macs(self, model: str) -> LayerCosts:
        """Ledger of a model's MACs by layer; empty for a model that the baseline does not have."""
        found = self.models.get(model)
        return LayerCosts(self.name, found.macs if found else {})

    def parameters(self, model: str) -> LayerCosts:
        """Ledger of a model's parameters by module; empty for a model that the baseline does not have."""
        found = self.models.get(model)
        return LayerCosts(self.name, found.parameters if found else {})


def baseline_document(baseline: Baseline) -> Document:
    """The baseline as a JSON object, sealed with its digest."""
    return with_digest(
        {
            "schema": BASELINE_SCHEMA,
            "convention": "mac",
            "models": {
                name: {
                    "inputs": list(baseline.inputs.get(name, ())),
                    "macs": measured.total_macs,
                    "parameters": measured.total_parameters,
                    "layers": cost_rows(measured),
                }
                for name, measured in baseline.models.items()
            },
        }
    )


def parse_baseline(document: Document, where: str) -> Baseline:
    """Baseline from its document; totals are added up again from the layers.

    Raises:
        InputError: names the path inside the document.
    """
    check(document, BASELINE_SCHEMA, where)
    parsed = validate(_BaselineObject, document, where)["models"]
    for name, model in parsed.items():
        check_rows(model["layers"], where, f"models.{name}.")
        for key in ("macs", "parameters"):
            total = sum(row[key] or 0 for row in model["layers"])
            if model[key] != total:
                raise InputError(
                    f"{where}: models.{name}.{key} is {model[key]}, and its layers make {total}; save the baseline again rather than editing it."
                )
    models = {
        name: ModelCost(
            {row["name"]: row["macs"] for row in model["layers"] if row["macs"] is not None},
            {row["name"]: row["parameters"] for row in model["layers"] if row["parameters"] is not None},
        )
        for name, model in parsed.items()
    }
    return Baseline(where, models, {name: tuple(model["inputs"]) for name, model in parsed.items()})


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
    layers: list[CostRowObject]


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
