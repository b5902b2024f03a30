"""Every bundled model, planned, built and measured: the closed form and three engines have to be one integer."""

from fractions import Fraction

import pytest

import iftplan as ift
from iftplan.models.zoo.entries import ZOO
from iftplan.nn.application.measuring import measure_plan
from iftplan.plans.plan import Scope
from tests.support.sampling import sampled

ENGINES = ("meta", "flop_counter", "fvcore")


def check(name: str, family: str, sparsity: str, scope: str = "layers") -> None:
    spec = ift.read_model(f"zoo:{name}", widths=family in ("wide", "lowrank", "nm"))
    try:
        plan = ift.plan(spec, family, sparsity, scope=scope)
    except ift.InfeasibleError as error:
        assert "cannot meet the budget of scope" in str(error)
        nearest = str(error).partition("nearest feasible sparsity is ")[2].rstrip(".")
        plan = ift.plan(spec, family, nearest, scope=scope)
    report = ift.audit(plan, measure_plan(plan, engines=ENGINES))
    assert report.passed, report.problems
    assert set(report.counters) == {"closed_form", *ENGINES}
    assert len(set(report.counters.values())) == 1
    off = 1 - plan.ratio(Scope(scope))
    assert off >= 0
    # nothing, or only whole patterns, to close with: the plan says what is left, and it is less than one step
    step = {"nm": Fraction(8, 64), "lowrank": Fraction(1, 10**4)}.get(family, Fraction(1, 10**6))
    assert off <= step
    if family in ("lowrank", "nm"):
        assert plan.residual_macs == 0 or any("unspent" in note for note in plan.notes)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "family"), sampled(tuple(ZOO), ("wide", "parallel"), of=2))
def test_the_zoo_costs_what_it_costs_dense(name: str, family: str) -> None:
    check(name, family, "3/4")


@pytest.mark.slow
@pytest.mark.parametrize("sparsity", ["0.5", "0.9"])
@pytest.mark.parametrize("family", ["wide", "parallel", "factorized", "doped", "lowrank"])
def test_resnet18_in_every_family(family: str, sparsity: str) -> None:
    check("resnet18-cifar", family, sparsity)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18-cifar", "resnet18"])
def test_resnet18_with_patterns(name: str) -> None:
    check(name, "nm", "0.75")


@pytest.mark.slow
@pytest.mark.parametrize("scope", ["matrices", "model"])
def test_gpt3_small_in_the_other_scopes(scope: str) -> None:
    check("gpt3-small", "wide", "0.5", scope)
