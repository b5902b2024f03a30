"""What a plan's summary says of layers that it leaves out, and of a model that costs more as a whole."""

from __future__ import annotations

from fractions import Fraction

import pytest

from iftplan import api
from iftplan.base.errors import InfeasibleError, InputError
from iftplan.base.options import in_options
from iftplan.families.builtin import family_named
from iftplan.models.zoo.specs import zoo_spec
from iftplan.plans.plan import Scope
from iftplan.plans.planner import plan
from iftplan.plans.policy import Policy
from iftplan.plans.tables import scope_table
from tests.support.hand_specs import chain, mlp


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


def said_of_crowding(outputs: int = 30, keep_dense: tuple[str, ...] = ("first", "last")) -> list[str]:
    spec = mlp((32, 64, 64, outputs), tokens=1)
    made = api.plan(spec, "wide", 0.75, keep_dense=keep_dense)
    return [note for note in made.notes if "of the budget goes to" in note]


def test_layers_that_stay_dense_and_take_nearly_all_are_named_with_the_way_out() -> None:
    (said,) = said_of_crowding()
    assert said == (  # 2 · (32 · 64 + 64 · 30) of 8064 MACs; 128 MACs for 128 · 128 weights
        "98.4 % of the budget goes to layers that have no mask (fc1, fc3), and the others are left with density 0.00781, "
        "where all together could have 0.332. `keep_dense='last'` makes sparsity 0.75 feasible, at density 0.206."
    )
    assert said_of_crowding(keep_dense=("last",)) == []
    assert said_of_crowding(outputs=10) == []


def test_a_crowded_scope_is_refused_with_the_layers_that_need_not_stay_dense() -> None:
    with pytest.raises(InfeasibleError) as refused:
        said_of_crowding(outputs=60)
    assert (
        "fc3 adds most, 3 840 → 7 680 (gives the model's output). `keep_dense='first'` makes sparsity 0.75 feasible, "
        "at density 0.245. The nearest feasible sparsity is" in str(refused.value)
    )
    assert in_options("`keep_dense='first'` makes") == "--keep-dense first makes"


def test_the_scope_of_a_plan_that_closes_none_is_answered_in_words() -> None:
    pruned = api.plan("zoo:digits-cnn", "none", 0.75)
    for asked in (pruned.ratio, pruned.macs, pruned.dense_macs, pruned.rows_in, pruned.budget_macs):
        with pytest.raises(
            InputError, match=r"the plan closes no scope, so its scope is None\. Give 'matrices'"
        ):
            asked(pruned.scope)
    wide = api.plan("zoo:digits-cnn", "wide", 0.75)
    with pytest.raises(InputError, match=r"scope 3: there is no such scope\. Give"):
        wide.ratio(3)  # type: ignore[arg-type]


def test_bundled_models_are_told_of_crowding_only_where_it_is_so() -> None:
    spec = zoo_spec("zoo:gpt3-small")
    assert spec is not None
    told = {
        sparsity: [note for note in api.plan(spec, "wide", sparsity).notes if "of the budget goes to" in note]
        for sparsity in (0.5, 0.75, 0.9)
    }
    assert {sparsity: len(notes) for sparsity, notes in told.items()} == {0.5: 0, 0.75: 0, 0.9: 1}
    assert "(lm_head)" in told[0.9][0]
    assert told[0.9][0].endswith("Choose a lower sparsity, or another scope.")
    for family in ("parallel", "factorized", "doped"):
        assert not any("of the budget goes to" in note for note in api.plan(spec, family, 0.9).notes)
