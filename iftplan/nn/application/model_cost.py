"""Cost of one configured model: of a network, or of the structure of a plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from iftplan.base.documents import loads, read_text, schema_of
from iftplan.base.errors import InputError, MeasureError
from iftplan.models.allowances import parse_vouched
from iftplan.models.cost import ModelCost
from iftplan.models.notation import parse_input
from iftplan.models.spec import InputSpec
from iftplan.nn.application.audit import audit_network, audit_structure
from iftplan.nn.application.dense_model import dense_model
from iftplan.nn.counting.operators.allowed import vouched_operators
from iftplan.nn.counting.passes.lazy_modules import materialise
from iftplan.nn.masks.nonzeros import nonzeros
from iftplan.nn.sources import construct
from iftplan.nn.sources.default_inputs import known_inputs
from iftplan.plans.audit.audit import AuditReport
from iftplan.plans.document.plan import parse_plan
from iftplan.plans.plan import Plan


def measure_model(request: Mapping[str, Any]) -> ModelCost:
    """Cost of the model or plan that a request of `iftplan.checks.check` names.

    Raises:
        InputError: the source cannot be built, or does not say what its inputs are.
        MeasureError: the model does not run, or its engines count differently.
        StaleError: the model is not the one that its plan was made for.
    """
    source = request["source"]
    operators = vouched_operators(parse_vouched(request["allow"]))
    second = "fvcore" if request["cross_check"] else ""
    if source.endswith(".json") and not source.startswith("hf:"):
        plan = _plan(source, tuple(map(parse_input, request["inputs"])))
        network = dense_model(plan, request["builds"] or None, called=source)
        report = audit_structure(plan, network, second=second, operators=operators)
        return _of_plan(plan, _agreed(report), network)
    built = construct(source, device="cpu" if request["nonzeros"] else "meta")
    inputs = known_inputs(source, tuple(map(parse_input, request["inputs"])) or built.inputs)
    network = materialise(built.model, inputs)
    thinned: bool = request["nonzeros"]
    report = audit_network(source, network, inputs, nonzeros=thinned, second=second, operators=operators)
    sizes = {name: p.numel() for name, p in network.named_parameters()}
    sizes |= nonzeros(network, from_values=True) if thinned else {}
    found = _result(_agreed(report), sizes)
    return replace(found, assumptions=(*built.assumptions, *found.assumptions))


def _agreed(report: AuditReport) -> AuditReport:
    """The report, if no engine counts differently from the first."""
    if report.disagreements:
        raise MeasureError(" ".join(report.disagreements))
    return report


def _of_plan(plan: Plan, report: AuditReport, network: nn.Module) -> ModelCost:
    """Cost of a planned network, with every query and every key where the plan's own audit counts pairs."""
    full = {x.name: (x.macs, x.full_macs) for x in plan.layers if x.attention}
    report = replace(
        report,
        layers=tuple(
            replace(row, measured_macs=full[row.name][1])
            if row.name in full and row.measured_macs == full[row.name][0]
            else row
            for row in report.layers
        ),
    )
    unseen = (x.name for x in report.layers if x.measured_macs is None and x.expected_macs)
    found = _result(report, _planned_sizes(plan, network))
    return replace(found, uncalled_modules=tuple(dict.fromkeys((*found.uncalled_modules, *unseen))))


def _planned_sizes(plan: Plan, network: nn.Module) -> dict[str, int]:
    """Parameter → its size, planned weights by what the plan keeps of them."""
    sizes = {name: p.numel() for name, p in network.named_parameters()}
    weights = {name for name, p in network.named_parameters() if p.dim() >= 2}
    for layer in plan.layers:
        mine = {n for n in weights if n == layer.weight or n.startswith(f"{layer.name}.")}
        if mine:  # a tied weight is planned once for every layer that has it, and is there once
            sizes = {n: size for n, size in sizes.items() if n not in mine}
            sizes[f"{layer.name}.weight"] = layer.nnz + layer.dense_weights
            weights -= mine
    return sizes


def _result(report: AuditReport, sizes: Mapping[str, int]) -> ModelCost:
    parameters: dict[str, int] = {}
    for name, size in sizes.items():
        module = name.rpartition(".")[0] or name
        parameters[module] = parameters.get(module, 0) + size
    macs = {layer.name: layer.measured_macs for layer in report.layers if layer.measured_macs is not None}
    return ModelCost(
        macs, parameters, report.elementwise, report.unknown_ops, report.uncalled_modules, report.assumptions
    )


def _plan(path: str, inputs: tuple[InputSpec, ...]) -> Plan:
    document = loads(read_text(path), path)
    if (kind := schema_of(document, path)) != "plan":
        raise InputError(
            f"{path} is a {kind} document, and source names a plan or a network: zoo:NAME, hf:CONFIG.json, path/file.py:factory."
        )
    return parse_plan(document, path, inputs)
