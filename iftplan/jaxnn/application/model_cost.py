"""Cost of one configured model in JAX, or of the structure of a plan for one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from iftplan.base.documents import loads, read_text, schema_of
from iftplan.base.errors import InputError
from iftplan.jaxnn.application.structure import dense_model, structured
from iftplan.jaxnn.counting.measure import counted
from iftplan.jaxnn.sources.models import Traceable, traceable
from iftplan.jaxnn.sources.sources import construct
from iftplan.models.allowances import parse_vouched
from iftplan.models.cost import ModelCost
from iftplan.models.notation import parse_input
from iftplan.plans.audit.audit import AuditReport, audit_model, audit_plan
from iftplan.plans.document.plan import parse_plan
from iftplan.plans.plan import Plan


def measure_model(request: Mapping[str, Any]) -> ModelCost:
    """Cost of the model or plan that a request of `iftplan.checks.check` names.

    Raises:
        InputError: the source cannot be built, does not say what its inputs are, or is to be counted by its values.
        MeasureError: the model does not run.
        StaleError: the model is not the one that its plan was made for.
    """
    source, vouched = request["source"], parse_vouched(request["allow"])
    if request["nonzeros"]:
        raise InputError(f"{source} is a model in JAX, which is counted without values; leave nonzeros out.")
    if not source.endswith(".json"):
        model = construct(source, tuple(map(parse_input, request["inputs"])))
        return _result(audit_model(source, [counted(model, vouched).table]), _sizes(model))
    document = loads(read_text(source), source)
    if (kind := schema_of(document, source)) != "plan":
        raise InputError(
            f"{source} is a {kind} document, and source names a plan or a network: path/file.py:factory."
        )
    plan = parse_plan(document, source, tuple(map(parse_input, request["inputs"])))
    named = request["builds"]
    if not named:
        raise InputError(
            f"{source} would run Python code, {plan.model}. A plan file is only data, so iftplan runs this code only if you name it as the model that it builds."
        )
    model = traceable(*structured(plan, dense_model(plan, named), source=named))
    report = audit_plan(plan, [counted(model, vouched).table])
    return _result(report, _planned_sizes(plan, _sizes(model)))


def _sizes(model: Traceable) -> dict[str, int]:
    """Parameter → its size."""
    return {name: leaf.size for name, leaf in model.trained().items()}


def _planned_sizes(plan: Plan, sizes: Mapping[str, int]) -> dict[str, int]:
    """Parameter → its size, planned weights by what the plan keeps of them."""
    kept = dict(sizes)
    for layer in plan.layers:
        inside = [n for n in kept if n.startswith(f"{layer.name}.") and not n.endswith("bias")]
        mine = [layer.weight] if layer.weight in kept else inside
        if mine:
            kept = {name: size for name, size in kept.items() if name not in mine}
            kept[f"{layer.name}.kernel"] = layer.nnz + layer.dense_weights
    return kept


def _result(report: AuditReport, sizes: Mapping[str, int]) -> ModelCost:
    parameters: dict[str, int] = {}
    for name, size in sizes.items():
        module = name.rpartition(".")[0] or name
        parameters[module] = parameters.get(module, 0) + size
    macs = {layer.name: layer.measured_macs for layer in report.layers if layer.measured_macs is not None}
    return ModelCost(
        macs, parameters, report.elementwise, report.unknown_ops, report.uncalled_modules, report.assumptions
    )
