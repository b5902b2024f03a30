"""Every bundled model at budgets from a quarter of its cost to twice it: closed to the MAC by three engines, or refused with a budget that closes.

The suite takes a share of the combinations, each model, budget and family in one of them at least. All of them:

    IFTPLAN_MATRIX=whole pytest tests/nn/application/test_zoo_budgets.py -m slow
"""

from fractions import Fraction
from math import gcd

import pytest

import iftplan as ift
from iftplan.models.zoo.entries import ZOO
from iftplan.nn.application.measuring import measure_plan
from tests.support.sampling import sampled

ENGINES = ("meta", "flop_counter", "fvcore")
BUDGETS = ("0.25x", "0.5x", "0.75x", "1.5x", "2x")


def check(name: str, family: str, budget: str) -> None:
    spec = ift.read_model(f"zoo:{name}", widths=family == "wide")
    sparsity = None if family == "none" else "3/4"
    asked: str | int = budget
    try:
        plan = ift.plan(spec, family, sparsity, budget=asked)
    except ift.InfeasibleError as error:
        named = str(error).partition("nearest feasible budget is `budget='")[2]
        asked = int(named.partition("'")[0])
        plan = ift.plan(spec, family, sparsity, budget=asked)
    dense = sum(weight.layer.dense_macs for weight in spec.layers)
    allowed = asked if isinstance(asked, int) else int(Fraction(asked[:-1]) * dense)
    report = ift.audit(plan, measure_plan(plan, engines=ENGINES))
    assert report.passed, report.problems
    assert set(report.counters) == {"closed_form", *ENGINES}
    assert len(set(report.counters.values())) == 1
    assert report.budget_macs == allowed
    assert plan.residual_macs == allowed - report.measured_macs
    # nothing is left, or less than any whole weights can spend
    steps = [layer.positions for layer in plan.layers if layer.maskable]
    assert 0 <= plan.residual_macs < max(gcd(*steps), 1)
    assert report.budget_ratio == 1 - Fraction(plan.residual_macs, allowed)
    assert report.ratio == Fraction(allowed - plan.residual_macs, dense)


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("family", ["none", "wide", "parallel"])
def test_a_small_model_costs_its_budget(family: str, budget: str) -> None:
    check("digits-cnn", family, budget)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "family", "budget"), sampled(tuple(ZOO), ("none", "wide", "parallel"), BUDGETS, of=15)
)
def test_the_zoo_costs_its_budget(name: str, family: str, budget: str) -> None:
    check(name, family, budget)
