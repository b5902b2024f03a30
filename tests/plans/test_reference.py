"""The choices of the paper's code (github.com/CerebrasResearch/Sparse-IFT) as switches, and one that sets them all."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from iftplan.families.integer_search import Multiplier
from iftplan.models.zoo.specs import zoo_spec
from iftplan.plans.document.plan import parse_plan, plan_document
from iftplan.plans.plan import Plan, PlannedLayer, Role, Scope
from iftplan.plans.request import PlanRequest, make_plan

RESNET = "zoo:resnet18-cifar"


def resnet(family: str, sparsity: str, **options: str) -> Plan:
    spec = zoo_spec(RESNET)
    assert spec is not None
    return make_plan(spec, PlanRequest(family=family, sparsity=sparsity, **options))  # type: ignore[arg-type]


def shortcuts(plan: Plan) -> list[PlannedLayer]:
    return [layer for layer in plan.layers if layer.before and layer.before.kernel == (1, 1)]


@pytest.mark.parametrize(("sparsity", "width"), [("0.5", 90), ("0.75", 128), ("0.9", 202)])
def test_widths_are_those_of_the_code(sparsity: str, width: int) -> None:
    """⌊64·√round(1/(1-s))⌋ in the first stage, and twice as many in every next one (`Model.get_model_from_name`)."""
    plan = resnet("wide", sparsity, rounding="floor")
    assert sorted(set(plan.widths.values()) - {3, 100}) == [width, 2 * width, 4 * width, 8 * width]
    assert plan.macs(Scope.LAYERS) == plan.dense_macs(Scope.LAYERS)
    masked = [layer for layer in plan.layers if layer.maskable]
    density = Fraction(sum(x.nnz for x in masked), sum(x.capacity for x in masked))
    covering = resnet("wide", sparsity)
    assert covering.widths != plan.widths or sparsity == "0.75"
    assert abs(density - (1 - Fraction(sparsity))) < Fraction(1, 100)


@pytest.mark.parametrize(
    ("squared", "size", "multiple", "width"),
    [(2, 64, 1, 90), (4, 64, 1, 128), (10, 64, 1, 202), (2, 64, 8, 88), (2, 3, 8, 8), (1, 5, 8, 5)],
)
def test_a_width_rounded_down(squared: int, size: int, multiple: int, width: int) -> None:
    assert Multiplier(Fraction(squared)).scale_down(size, multiple) == width


@pytest.mark.parametrize("family", ["parallel", "factorized", "doped"])
def test_shortcuts_are_only_masked(family: str) -> None:
    plan = resnet(family, "0.75", pointwise="masked")
    found = shortcuts(plan)
    assert len(found) == 3
    for layer in found:
        assert (layer.role, layer.maskable, dict(layer.structure)) == (Role.TRANSFORMED, True, {})
        assert layer.reason == "masked at the same width"
        assert layer.capacity == layer.before.weights and 0 < layer.nnz < layer.capacity
    densities = {
        round(layer.nnz / layer.capacity, 2) for layer in plan.layers if layer.maskable
    }  # one for all, a little above a quarter
    assert len(densities) == 1
    assert plan.residual_macs == 0
    assert parse_plan(plan_document(plan)) == plan
    usual = shortcuts(resnet(family, "0.75"))
    assert all(layer.structure for layer in usual)


def test_wide_layers_are_wide_whatever_becomes_of_pointwise_ones() -> None:
    usual, masked = resnet("wide", "0.75"), resnet("wide", "0.75", pointwise="masked")
    assert replace(usual, notes=()) == replace(masked, notes=())


def test_one_call_makes_all_choices_of_a_plan() -> None:
    asked = PlanRequest(family="parallel", sparsity="0.5")
    assert asked.as_reference() == replace(asked, rounding="floor", pointwise="masked")
    assert (asked.as_reference().policy().rounding, asked.policy().rounding) == ("floor", "cover")
