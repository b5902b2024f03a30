"""What a plan's summary says of layers that it leaves out, and of a model that costs more as a whole."""

from __future__ import annotations

from fractions import Fraction

import pytest

from iftplan.families.builtin import family_named
from iftplan.models.zoo_specs import zoo_spec
from iftplan.plans.plan import Scope
from iftplan.plans.planner import plan
from iftplan.plans.policy import Policy
from iftplan.plans.tables import scope_table
from tests.support.hand_specs import chain


def notes(source: str, family: str, scope: Scope) -> str:
    spec = zoo_spec(source)
    assert spec is not None
    return "\n".join(scope_table(plan(spec, Policy(family_named(family), Fraction(3, 4), scope))).notes)


@pytest.mark.parametrize(
    ("source", "scope", "said"),
    [
        ("zoo:vit-b16", Scope.LAYERS, "the whole model costs 4.07 % more than the dense one"),
        ("zoo:vit-b16", Scope.MODEL, ""),
        ("zoo:resnet18-cifar", Scope.LAYERS, ""),
    ],
)
def test_a_scope_that_leaves_the_model_dearer_is_said(source: str, scope: Scope, said: str) -> None:
    found = notes(source, "wide", scope)
    assert said in found
    assert ("whole model" in found) == bool(said)


def test_layers_that_are_left_out_are_named_with_the_reason() -> None:
    assert "note: 1 layer is not transformed (lm_head): shares its weight with" in notes(
        "zoo:gpt3-small", "wide", Scope.MODEL
    )
    assert "not transformed" not in notes("zoo:mobilenetv2", "wide", Scope.LAYERS)


def test_widths_that_rounding_takes_well_above_the_multiplier_are_told() -> None:
    rounded = scope_table(plan(chain(), Policy(family_named("wide"), Fraction(1, 2), round_to=16))).notes
    assert any(
        "k = 1.41421 before rounding; rounded up" in note and note.endswith("a factor of 2")
        for note in rounded
    ), rounded
    exact = scope_table(plan(chain(), Policy(family_named("wide"), Fraction(3, 4)))).notes
    assert not any("before rounding" in note for note in exact)
