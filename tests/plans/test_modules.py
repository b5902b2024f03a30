"""Plans of one module alone: what is widened, what is closed, and what they say of all that lies beside it."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

import iftplan as ift
from iftplan.base.documents import with_digest
from iftplan.base.errors import InputError
from iftplan.models.spec import ModelSpec
from iftplan.models.zoo.specs import zoo_spec
from iftplan.plans.document.plan import parse_plan, plan_document
from iftplan.plans.plan import KeptFor, Plan, PlannedLayer, Role, Scope, lies_within, parse_scope, scope_text
from iftplan.plans.tables import scope_table
from tests.support.hand_specs import chain

BACKBONE, NECK, HEAD = 37_011_456_000, 13_651_804_160, 137_800_673_280
LATERALS = (16_000 * 128 + 4_000 * 256 + 1_000 * 512) * 256
COARSER = 260 * 9 * 512 * 256
"""The pyramid's layers that read the backbone, at 800×1280; at twice the width they cost as much again."""


def detector() -> ModelSpec:
    spec = zoo_spec("zoo:retinanet-r18")
    assert spec is not None
    return spec


def by_part(plan: Plan) -> dict[str, list[PlannedLayer]]:
    parts: dict[str, list[PlannedLayer]] = {}
    for layer in plan.layers:
        parts.setdefault(layer.name.partition(".")[0], []).append(layer)
    return parts


def test_a_backbone_alone_is_widened_and_closed() -> None:
    plan = ift.plan(detector(), "wide", "3/4", scope="module:backbone")
    parts = by_part(plan)
    assert (plan.scope, plan.within, plan.multiplier) == (Scope.MODULE, "backbone", 2)
    assert plan.dense_macs("module") == plan.macs("module") == BACKBONE
    assert plan.residual_macs == 0
    assert plan.dense_macs("model") == BACKBONE + NECK + HEAD
    assert sum(layer.macs for layer in parts["head"]) == HEAD
    assert sum(layer.macs for layer in parts["neck"]) == NECK + LATERALS + COARSER
    assert {layer.role for layer in parts["neck"] + parts["head"]} == {Role.KEPT_DENSE}
    assert {layer.kept_for for layer in parts["neck"]} == {KeptFor.MODULE}
    assert not any(layer.maskable for layer in parts["neck"] + parts["head"])
    for layer in parts["neck"] + parts["head"]:
        assert layer.before and layer.after and layer.after.out_channels == layer.before.out_channels
    for layer in parts["backbone"]:
        assert (
            layer.before and layer.after and layer.after.out_channels == 2 * (layer.before.out_channels or 0)
        )


@pytest.mark.parametrize("scope", ["layers", "model"])
def test_a_wider_scope_makes_the_module_pay_for_its_neighbours(scope: str) -> None:
    plan = ift.plan(detector(), "wide", "3/4", scope=scope, within="backbone")
    assert plan.residual_macs is not None
    assert 0 <= plan.residual_macs < 1000  # a weight of the last stage is applied at 25·40 positions
    assert plan.macs("module") == BACKBONE - LATERALS - COARSER - plan.residual_macs
    assert plan.widths == ift.plan(detector(), "wide", "3/4", scope="module:backbone").widths


@pytest.mark.parametrize("family", ["parallel", "factorized", "doped", "lowrank"])
def test_every_family_stays_inside(family: str) -> None:
    plan = ift.plan(detector(), family, "3/4", scope="module:backbone")
    outside = [layer for layer in plan.layers if not layer.name.startswith("backbone.")]
    assert all(layer.role is Role.KEPT_DENSE for layer in outside)
    assert plan.residual_macs is not None
    assert 0 <= plan.residual_macs < 1000
    if family != "lowrank":  # which widens, too
        assert all(layer.macs == layer.dense_macs for layer in outside)


def test_plain_sparsity_masks_the_module_alone() -> None:
    plan = ift.plan(detector(), None, "3/4", within="backbone")
    assert plan.scope is None
    assert {layer.name.partition(".")[0] for layer in plan.layers if layer.maskable} == {"backbone"}
    assert plan.macs("model") - plan.macs("module") == NECK + HEAD


def test_close_by_width_closes_the_module() -> None:
    plan = ift.plan(detector(), "wide", "3/4", scope="module:backbone", close="width")
    assert plan.macs("module") == BACKBONE
    assert plan.multiplier < 2
    sparsity = plan.closing_sparsity[Scope.MODULE]
    assert sparsity is not None
    assert abs(float(sparsity) - 0.75) < 0.002


def test_a_glob_names_several_modules() -> None:
    plan = ift.plan(detector(), "parallel", "1/2", scope="module:*.stages.[23]")
    inside = [layer.name for layer in plan.layers if layer.role is Role.TRANSFORMED]
    assert {name.split(".")[3] for name in inside} == {"2", "3"}
    assert len(inside) == 10
    assert plan.dense_macs("module") == 2 * (1_179_648_000 + 3 * 2_359_296_000 + 131_072_000)


def test_products_of_activations_in_a_module_are_paid_for() -> None:
    spec = zoo_spec("zoo:gpt-char")
    assert spec is not None
    plan = ift.plan(spec, "wide", "1/2", scope="module:transformer.h.*", keep_dense=None)
    products = [layer for layer in plan.layers if layer.role is Role.ACTIVATION]
    assert products
    assert all(layer.macs > layer.dense_macs for layer in products)
    assert plan.residual_macs is not None
    assert 0 <= plan.residual_macs < 128
    assert plan.macs("module") == plan.dense_macs("module") - plan.residual_macs
    assert {layer.name for layer in plan.rows_in("module")} >= {layer.name for layer in products}


def test_the_table_names_shares_and_neighbours() -> None:
    plan = ift.plan(detector(), "wide", "3/4", scope="module:backbone")
    table = scope_table(plan)
    assert [row[0] for row in table.rows] == ["matrices", "layers", "model", "module:backbone (closed)"]
    said = "\n".join(table.notes)
    assert "module:backbone 19.6 %, neck 7.2 %, head 73.1 %" in said
    assert f"4 layers follow its widths for {LATERALS + COARSER:,} MACs more".replace(",", " ") in said
    assert "which scope layers would count" in said
    paid = "\n".join(scope_table(ift.plan(detector(), "wide", "3/4", within="backbone")).notes)
    assert "module:backbone pays for that" in paid


def test_a_plan_without_a_module_has_three_scopes_and_no_key() -> None:
    plan = ift.plan(chain(), "wide", "3/4")
    document = plan_document(plan)
    assert plan.scopes == (Scope.MATRICES, Scope.LAYERS, Scope.MODEL)
    assert "within" not in document
    assert list(document["dense"]) == ["matrices", "layers", "model"]
    with pytest.raises(InputError, match="is of the whole model"):
        plan.macs("module")


def test_a_plan_of_a_module_is_read_back() -> None:
    plan = ift.plan(detector(), "wide", "3/4", scope="module:backbone")
    document = plan_document(plan)
    assert (document["scope"], document["within"]) == ("module", "backbone")
    assert parse_plan(document) == plan


def edited(**changes: Any) -> dict[str, Any]:
    document = plan_document(ift.plan(detector(), "wide", "3/4", scope="module:backbone"))
    document.pop("digest")
    kept = {key: value for key, value in (document | changes).items() if value is not None}
    return with_digest(kept)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"within": None}, "within names no module"),
        ({"within": "neck"}, r"backbone\S+ outside of it is transformed"),
        ({"scope": "matrices"}, "residual_macs does not follow"),
    ],
)
def test_an_edited_module_is_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        parse_plan(edited(**changes))


@pytest.mark.parametrize(
    ("text", "within", "found"),
    [
        ("layers", "", (Scope.LAYERS, "")),
        ("Model", "neck", (Scope.MODEL, "neck")),
        ("module:a.*.b", "", (Scope.MODULE, "a.*.b")),
        ("module", "neck", (Scope.MODULE, "neck")),
        ("module:neck", "neck", (Scope.MODULE, "neck")),
    ],
)
def test_scopes_are_read(text: str, within: str, found: tuple[Scope, str]) -> None:
    assert parse_scope(text, within) == found
    assert parse_scope(scope_text(*found), within) == found


@pytest.mark.parametrize(
    ("text", "within", "says"),
    [
        ("world", "", "none of matrices, layers, model and module:NAME. Did you mean 'module:world'"),
        ("module", "", "module:NAME"),
        ("module:", "", "module:NAME"),
        ("layers:neck", "", "module:NAME"),
        ("module:neck", "head", "two modules"),
    ],
)
def test_other_scopes_are_refused(text: str, within: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        parse_scope(text, within)


@pytest.mark.parametrize(
    ("name", "modules", "inside"),
    [
        ("backbone.stem.0", "backbone", True),
        ("backbone", "backbone", True),
        ("backbones.0", "backbone", False),
        ("neck.backbone.0", "backbone", False),
        ("neck.backbone.0", "*.backbone", True),
        ("h.3.attn:matmul", "h.3.attn", True),
        ("h.3.attn:matmul", "h.?.mlp", False),
    ],
)
def test_a_layer_lies_in_a_module_by_its_path(name: str, modules: str, inside: bool) -> None:
    assert lies_within(name, modules) is inside


def test_a_module_that_is_not_there_is_named() -> None:
    with pytest.raises(InputError, match=r"Did you mean 'backbone'.*backbone, neck, head"):
        ift.plan(detector(), "wide", "3/4", within="backbon")


def test_a_sweep_and_a_run_ask_for_a_module_by_the_same_text() -> None:
    from iftplan.runs.settings import PlanConfig
    from iftplan.runs.sweeps.grid import planned_rows

    asked = PlanConfig(model="zoo:retinanet-r18", scope="module:backbone")
    assert (asked.request.scope, asked.request.within) == (Scope.MODULE, "backbone")
    (row,) = planned_rows({asked.model: detector()}, [asked])
    assert (row.scope, row.ratio) == ("module:backbone", 1)
    assert row.macs == BACKBONE + NECK + HEAD + LATERALS + COARSER


def test_the_share_that_closes_a_module_is_its_own() -> None:
    """Densities of all four scopes, by the books: what a scope's fixed part leaves, over what its masks could hold."""
    plan = ift.plan(detector(), "wide", "3/4", scope="module:backbone")
    full = sum(layer.macs_of(layer.capacity) for layer in plan.layers if layer.maskable)
    stem = 2 * 2_408_448_000
    assert plan.closing_sparsity[Scope.MODULE] == 1 - Fraction(BACKBONE - stem, full)
    assert plan.closing_sparsity[Scope.LAYERS] == 1 - Fraction(BACKBONE - stem - LATERALS - COARSER, full)


def test_macs_of_any_module_can_be_asked_of_a_plan() -> None:
    plan = ift.plan(detector(), "wide", "3/4", scope="module:backbone")
    assert plan.ratio("module:backbone") == plan.ratio(Scope.MODULE) == 1
    parts = sum(plan.macs(f"module:{name}") for name in {layer.name.split(".")[0] for layer in plan.layers})
    assert parts == plan.macs("model")
    assert plan.macs("module:nothing") == 0
    with pytest.raises(InputError, match="names nothing"):
        ift.plan(detector(), "wide", "3/4").ratio("module")
