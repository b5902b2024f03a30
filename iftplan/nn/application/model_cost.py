"""What one configured model costs: a network as it stands, or the structure of a plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

from torch import nn

from iftplan.base.documents import loads, read_text, schema_of
from iftplan.base.errors import InputError, MeasureError, StaleError
from iftplan.models.allowances import parse_vouched
from iftplan.models.cost import ModelCost
from iftplan.models.counting import CountTable, cross_check
from iftplan.models.notation import parse_input
from iftplan.models.sources import parse_source
from iftplan.nn.application.measuring import measure_plan
from iftplan.nn.counting.operators.allowed import vouched_operators
from iftplan.nn.counting.opinions import measure_by
from iftplan.nn.counting.passes.lazy import materialised
from iftplan.nn.masks.nonzeros import check_even, nonzeros
from iftplan.nn.meta.fingerprint import fingerprint
from iftplan.nn.sources import build, construct
from iftplan.plans.audit.audit import layer_macs, measured_layers
from iftplan.plans.document.plan import parse_plan
from iftplan.plans.plan import Plan


def measured(request: Mapping[str, Any]) -> ModelCost:
    """Build and measure what a request of `iftplan.checks.check` names.

    Raises:
        InputError: the source cannot be built, or does not say what its inputs are.
        MeasureError: the model does not run, or its engines count differently.
        StaleError: the model is not the one that its plan was made for.
    """
    source = request["source"]
    operators = vouched_operators(parse_vouched(request["allow"]))
    second = "fvcore" if request["cross_check"] else ""
    if source.endswith(".json") and not source.startswith("hf:"):
        plan = _plan(source)
        network = _planned_network(plan, source, request["builds"])
        table = _agreed(measure_plan(plan, network, second=second, operators=operators))
        return _of_plan(plan, table, network)
    built = construct(source, device="cpu" if request["nonzeros"] else "meta")
    inputs = tuple(map(parse_input, request["inputs"])) or built.inputs
    if not inputs:
        raise InputError(
            f'{source} does not say what its inputs are; give their shapes, for instance inputs = ["1x3x224x224"].'
        )
    built = replace(built, model=materialised(built.model, inputs))
    table = _agreed(measure_by(built.model, inputs, ("meta",), second=second, operators=operators))
    return _of_network(built.model, table, built.assumptions, thinned=request["nonzeros"])


def _agreed(tables: Sequence[CountTable]) -> CountTable:
    """The first engine's counts, if no other engine counts differently."""
    if differences := cross_check(tables):
        raise MeasureError(" ".join(differences))
    return tables[0]


def _of_network(
    network: nn.Module, table: CountTable, assumptions: tuple[str, ...], *, thinned: bool
) -> ModelCost:
    sizes = {name: p.numel() for name, p in network.named_parameters()}
    kept = nonzeros(network, from_values=True) if thinned else {}
    if thinned:
        check_even(network, table)
    shares = {name: Fraction(count, sizes[name]) for name, count in kept.items()}
    return _result(table, layer_macs(table, shares), sizes | kept, (*assumptions, *table.assumptions))


def _of_plan(plan: Plan, table: CountTable, network: nn.Module) -> ModelCost:
    rows = list(zip(plan.layers, measured_layers(plan, table), strict=True))
    macs = {layer.name: found for layer, found in rows if found is not None}
    unseen = (layer.name for layer, found in rows if found is None and layer.macs)
    planned = "weights under a mask count by the plan's nnz (planned, not measured)"
    found = _result(table, macs, _planned_sizes(plan, network), (planned, *table.assumptions))
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


def _result(
    table: CountTable, macs: Mapping[str, int], sizes: Mapping[str, int], assumptions: tuple[str, ...]
) -> ModelCost:
    parameters: dict[str, int] = {}
    for name, size in sizes.items():
        module = name.rpartition(".")[0] or name
        parameters[module] = parameters.get(module, 0) + size
    return ModelCost(dict(macs), parameters, table.elementwise, table.unknown, table.uncalled, assumptions)


def _plan(path: str) -> Plan:
    document = loads(read_text(path), path)
    if (kind := schema_of(document, path)) != "plan":
        raise InputError(
            f"{path} is a {kind} document, and source names a plan or a network: zoo:NAME, hf:CONFIG.json, path/file.py:factory."
        )
    return parse_plan(document, path)


def _planned_network(plan: Plan, path: str, builds: str) -> nn.Module:
    source = builds or plan.model
    if not builds and parse_source(source).runs_user_code:
        raise InputError(
            f'{path} names Python of its own, {source}; a plan file is data, so write model = "{source}" beside it in the configuration.'
        )
    network = materialised(build(source), plan.inputs)
    if (found := fingerprint(network)) != plan.fingerprint:
        raise StaleError(
            f"{source} is no longer the model that {path} was planned for (fingerprint {found[:12]}…, planned {plan.fingerprint[:12]}…): its modules or shapes changed. Make the plan again with iftplan plan {source}."
        )
    return network
