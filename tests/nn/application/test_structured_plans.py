"""Plans with a structure: closed to the MAC, audited, applied; and what published code loses on the way."""

from __future__ import annotations

import json
from functools import cache
from math import gcd
from pathlib import Path

import pytest
import torch
from torch import nn

import iftplan as ift
from iftplan.base.errors import InfeasibleError, InputError
from iftplan.masks import NM, parse_mask
from iftplan.models.spec import ModelSpec
from iftplan.nn import apply, masked_weights, measure_applied
from iftplan.nn.application.measuring import measure_plan
from iftplan.nn.masks.checking import holds
from iftplan.nn.masks.masked_weights import to_matrix
from iftplan.plans.plan import Plan, PlannedLayer, Role, Scope
from tests.support.cli_runs import many
from tests.support.models.applied import host, planned


@cache
def spec() -> ModelSpec:
    return ift.read_model("zoo:resnet8-cifar")


def wide(structure: str, **choices: str) -> Plan:
    mask = parse_mask(structure)
    sparsity = 1 - mask.density if isinstance(mask, NM) else "3/4"
    return ift.plan(spec(), "wide", sparsity, mask=structure, **choices)  # type: ignore[arg-type]


STRUCTURES = (
    "2:8T", "2:8", "1:8T", "1:4T", "2:4+pad", "4:8T+pad", "block4x4", "block4x4+pad", "fan-in", "channel",
)  # fmt: skip


@pytest.mark.parametrize(("structure", "scope"), [*((s, "layers") for s in STRUCTURES), ("2:8T", "model")])
def test_a_wide_plan_closes_to_the_last_step_of_its_structure(structure: str, scope: str) -> None:
    plan, mask = wide(structure, scope=scope), parse_mask(structure)
    masked = [layer for layer in plan.layers if layer.maskable]
    assert masked
    steps = []
    for layer in masked:
        structured = layer.role is Role.TRANSFORMED
        shapes = ((layer.capacity // _outputs(layer), _outputs(layer)),)
        assert not structured or layer.nnz in mask.counts(shapes)
        steps.append(layer.positions * (mask.counts(shapes).step if structured else 1))
    assert plan.residual_macs is not None
    if structure in (
        "fan-in",
        "channel",
    ):  # steps of layers are large and of many sizes, and not every sum is reached
        assert 0 <= plan.residual_macs < min(steps)
    else:
        assert 0 <= plan.residual_macs < gcd(*steps)
    assert ift.audit(plan, measure_plan(plan)).passed


def pattern(structure: str) -> NM:
    mask = parse_mask(structure)
    assert isinstance(mask, NM)
    return mask


def _outputs(layer: PlannedLayer) -> int:
    return int(layer.structure["out_channels"])


@pytest.mark.parametrize("structure", ["2:8T", "2:8", "1:8T"])
def test_few_groups_are_short_and_the_note_says_what_hardware_spends(structure: str) -> None:
    plan, mask = wide(structure), pattern(structure)
    masked = [layer for layer in plan.layers if layer.role is Role.TRANSFORMED]
    shapes = {layer.name: ((layer.capacity // _outputs(layer), _outputs(layer)),) for layer in masked}
    short = sum(mask.short(shapes[layer.name], layer.nnz) for layer in masked)
    groups = sum(mask.groups(shapes[layer.name]) for layer in masked)
    assert short < 0.25 * groups
    whole = plan.macs(Scope.LAYERS) + sum(
        layer.positions * (mask.counts(shapes[layer.name])[-1] - layer.nnz) for layer in masked
    )
    (note,) = [note for note in plan.notes if "to meet the budget" in note]
    assert f"{whole:,}".replace(",", " ") in note
    assert f"{short / groups:.2%}" in note


@pytest.mark.parametrize("structure", ["2:8T", "1:4"])
def test_closing_by_pattern_keeps_every_pattern_whole_and_names_the_residual(structure: str) -> None:
    plan, mask = wide(structure, close="pattern"), pattern(structure)
    for layer in plan.layers:
        if layer.role is Role.TRANSFORMED:
            assert layer.nnz * mask.of == layer.capacity * mask.kept
    assert plan.residual_macs is not None
    assert plan.residual_macs > 0
    assert any(f"{plan.residual_macs:,}".replace(",", " ") in note for note in plan.notes)
    assert ift.audit(plan, measure_plan(plan)).passed
    with pytest.raises(InputError, match="unstructured masks have no such pattern"):
        wide("unstructured", close="pattern")


@pytest.mark.parametrize("structure", ["2:8T+pad", "2:4+pad", "block4x4+pad", "channel"])
def test_an_applied_plan_has_the_structure_and_measures_as_planned(structure: str) -> None:
    plan = ift.plan(
        ift.read_model(host("convolutions"), "2x3x8x8"), "wide", "1/2" if "4" in structure else "3/4", mask=structure
    )  # fmt: skip
    model = apply(plan, host("convolutions"))
    mask = parse_mask(structure)
    named = {layer.weight: layer for layer in plan.layers if layer.maskable}
    for weight in masked_weights(model):
        layer = named[weight.name]
        assert int(weight.mask.sum()) == layer.nnz
        assert layer.role is not Role.TRANSFORMED or holds(mask, to_matrix(weight.mask, weight))
    assert measure_applied(plan, model).passed


def test_patterns_too_coarse_for_narrow_layers_say_what_is_not() -> None:
    with pytest.raises(InfeasibleError, match=r"4:8T\+pad'`, or keep patterns whole .*`close='pattern'`"):
        wide("4:8T")


# --- a linear layer that loses its bias ----------------------------------------------------------------


@pytest.mark.parametrize("family", ["wide", "parallel", "factorized", "doped", "lowrank"])
def test_every_family_keeps_the_bias_of_a_linear_layer_once(family: str) -> None:
    """Published low-rank layers drop it: a layer of zeros must still give the bias, and each output has one."""
    plan = planned("perceptron", family)
    model = apply(plan, host("perceptron"))
    for layer in plan.layers:
        module = model.get_submodule(layer.name)
        linear = [part for part in module.modules() if isinstance(part, nn.Linear)]
        after = layer.structure.get("out_channels") or linear[-1].out_features
        assert [len(part.bias) for part in linear if part.bias is not None] == [after], layer.name
        inputs = torch.randn(2, int(layer.structure.get("in_channels") or _inputs(layer.name)))
        given = module(inputs)
        (given * torch.randn_like(given)).sum().backward()
        (bias,) = (part.bias for part in linear if part.bias is not None)
        assert bias.grad is not None and (bias.grad != 0).all(), f"{layer.name} does not use its bias"


def _inputs(name: str) -> int:
    module = host("perceptron").get_submodule(name)
    assert isinstance(module, nn.Linear)
    return module.in_features


# --- on the command line ------------------------------------------------------------------------------


@pytest.mark.slow
def test_structures_on_the_command_line(tmp_path: Path) -> None:
    """`--structure` brings its own sparsity, `--mask` is its other name, and what does not fit is told."""
    base = ("plan", "zoo:resnet8-cifar", "--transform", "wide", "--format", "json")
    plain, other, refused = many(
        [
            (*base, "--structure", "1:8T"),
            (*base, "--mask", "1:8T", "--sparsity", "7/8"),
            (*base, "--structure", "1:8T", "--sparsity", "3/4"),
        ],
        tmp_path,
    )
    assert json.loads(plain.out) == json.loads(other.out)
    assert json.loads(plain.out)["sparsity_exact"] == "7/8"
    assert json.loads(plain.out)["mask"] == "1:8T"
    assert refused.code == 2
    assert "1:8T masks have sparsity 0.875, not 0.75" in refused.message
