"""Plans whose attention keeps a pattern: both sides counted by pairs, closed, written, read back, and refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

import iftplan as ift
from iftplan.base.documents import with_digest
from iftplan.base.errors import InputError
from iftplan.masks.attention.product import AttentionCall
from iftplan.models.document import parse_spec, spec_document
from iftplan.models.spec import ModelSpec
from iftplan.plans.document.plan import parse_plan, plan_document
from iftplan.plans.plan import Plan, Role
from iftplan.plans.tables import scope_table
from iftplan.runs.costs.training_cost import TrainingCost
from iftplan.runs.results.reading import of_plan
from tests.support.hand_specs import chain

TOKENS, LAYERS, WIDTH = 1024, 12, 768
CAUSAL = TOKENS * (TOKENS + 1) // 2
WINDOW = 256 * TOKENS - 256 * 255 // 2
"""Pairs of GPT-3 Small: every query with itself and all before, or with the last 256 of these."""
WEIGHTS = 126_496_800_768


def gpt(**asked: Any) -> Plan:
    return ift.plan("zoo:gpt3-small", "wide", "1/2", **asked)


def attention_rows(plan: Plan) -> list[Any]:
    return [layer for layer in plan.layers if layer.role is Role.ACTIVATION]


def test_gpt3_small_spends_what_a_window_saves() -> None:
    plan = gpt(attention="window:256", scope="model")
    wide = plan.widths[next(iter(plan.widths))]
    assert plan.dense_macs("model") == WEIGHTS + LAYERS * 2 * WIDTH * CAUSAL
    assert plan.macs("model") == plan.dense_macs("model")
    assert plan.residual_macs == 0
    for layer in attention_rows(plan):
        assert layer.dense_macs == 2 * WIDTH * CAUSAL
        heads_times_channels = layer.full_macs // (2 * TOKENS * TOKENS)
        assert heads_times_channels > WIDTH
        assert layer.macs == 2 * heads_times_channels * WINDOW
        assert (layer.attention.before, layer.attention.after) == ("causal", "window:256+causal")
    assert wide > 0
    full = gpt(scope="model")
    assert (
        plan.dense_full_macs("model") == full.dense_macs("model") == WEIGHTS + LAYERS * 2 * WIDTH * TOKENS**2
    )
    # what the window saves keeps more weights than causal attention does, counted alike
    causal = gpt(attention="causal", scope="model")
    kept = [sum(layer.nnz for layer in each.layers if layer.maskable) for each in (plan, causal)]
    assert kept[0] > kept[1]
    assert causal.macs("model") == causal.dense_macs("model") == plan.dense_macs("model")


def test_the_notes_name_the_convention_and_both_counts() -> None:
    plan = gpt(attention="window:256", scope="model")
    notes = "\n".join(scope_table(plan).notes)
    assert "counted by pairs of a query and a key, before and after (causal → window:256+causal)" in notes
    assert "with every query and every key, scope model costs 145 824 153 600 MACs before" in notes
    assert "stays unspent" not in notes and "not spent" not in notes
    layers = gpt(attention="window:256")
    assert any("counts no attention, so what it saves is not spent" in note for note in layers.notes)
    assert layers.macs("layers") == layers.dense_macs("layers") == WEIGHTS


def test_a_selection_by_scores_states_its_cost() -> None:
    plan = gpt(attention="top-k:64", scope="model")
    kept = sum(min(64, i + 1) for i in range(TOKENS))
    for layer in attention_rows(plan):
        channels = layer.full_macs // (2 * TOKENS * TOKENS)
        assert layer.macs == channels * (CAUSAL + kept)
    chosen = sum(layer.full_macs // (2 * TOKENS * TOKENS) for layer in attention_rows(plan)) * (CAUSAL - kept)
    assert any(f"{chosen:,}".replace(",", " ") in note and "choose the keys" in note for note in plan.notes)


def test_training_and_comparisons_count_in_full() -> None:
    plan = gpt(attention="window:256", scope="model")
    cost = TrainingCost.of(plan)
    assert (cost.forward(), cost.dense) == (plan.full_macs("model"), plan.dense_full_macs("model"))
    seen = of_plan(plan, "window.json")
    assert (seen.macs, seen.dense_macs) == (plan.full_macs("model"), plan.dense_full_macs("model"))


def test_a_plan_without_a_pattern_is_as_it_was() -> None:
    document = plan_document(gpt(scope="model"))
    assert "attention" not in document
    assert not any("attention" in layer for layer in document["layers"])


def test_the_document_comes_back() -> None:
    plan = gpt(attention="window:256+strided:2", scope="model")
    document = plan_document(plan)
    assert document["attention"]["convention"] == "pairs"
    assert document["attention"]["pattern"] == "strided:2+window:256"
    assert document["attention"]["planned_full"]["model"] == plan.full_macs("model")
    assert parse_plan(document) == plan
    row = next(i for i, layer in enumerate(document["layers"]) if "attention" in layer)
    for change in (
        {"after": "window:128+causal"},
        {"queries": 512},
        {"full_macs": 1},
        {"after": "nonsense"},
        {"keys": 0},
    ):
        layers = list(document["layers"])
        layers[row] = {**layers[row], "attention": {**layers[row]["attention"], **change}}
        forged = with_digest({**document, "layers": layers})
        with pytest.raises(InputError, match="make the plan again"):
            parse_plan(forged)


def with_attention(mask: str | None, channels: int = 8) -> ModelSpec:
    """The chain, whose product is attention of 16 queries and 16 keys."""
    spec = chain()
    call = AttentionCall(16, 16, 12, 2 * channels - 4 if channels != 8 else 12, mask)
    return replace(spec, products=tuple(replace(product, attention=call) for product in spec.products))


def test_a_mask_tensor_has_to_be_explained() -> None:
    with pytest.raises(InputError, match="attention_before='causal'"):
        ift.plan(with_attention(None), "wide", attention="window:4")
    told = ift.plan(
        with_attention(None), "wide", attention="window:4", attention_before="causal", scope="model"
    )
    known = ift.plan(with_attention("causal"), "wide", attention="window:4", scope="model")
    assert told.macs("model") == known.macs("model") == known.dense_macs("model")
    assert parse_plan(plan_document(told)) == told
    assert told.attention_before == "causal" and known.attention_before == ""
    with pytest.raises(InputError, match="Give `attention` too"):
        ift.plan(with_attention(None), "wide", attention_before="causal")


def test_attention_beside_the_planned_module_keeps_its_own_mask() -> None:
    plan = ift.plan(
        with_attention("causal"), "wide", attention="window:4", within="body", keep_dense=None, scope="model"
    )
    (row,) = attention_rows(plan)
    assert row.attention.before == row.attention.after == "causal"
    assert row.dense_macs == row.macs == 2 * 24 * 16 * 17 // 2


def test_a_model_without_known_attention_is_refused() -> None:
    with pytest.raises(InputError, match="only calls of scaled_dot_product_attention"):
        ift.plan(chain(), "wide", attention="causal")


def test_specs_keep_the_sizes_of_attention() -> None:
    spec = with_attention("causal")
    document = spec_document(spec)
    assert document["products"][0]["attention"] == {
        "queries": 16,
        "keys": 16,
        "score_channels": 12,
        "value_channels": 12,
        "mask": "causal",
    }
    assert parse_spec(document) == spec
    assert "attention" not in spec_document(chain())["products"][0]
    for change in ({"queries": 0}, {"queries": 17}, {"mask": "no pattern"}):
        wrong = [{**document["products"][0], "attention": {**document["products"][0]["attention"], **change}}]
        with pytest.raises(InputError, match=r"products\.0\.attention"):
            parse_spec(with_digest({**document, "products": wrong}))


def test_keys_and_values_of_two_sizes_are_not_selected() -> None:
    spec = with_attention("full", 11)
    assert ift.plan(spec, "wide", attention="window:4", scope="model").residual_macs is not None
    with pytest.raises(InputError, match="keys and values of one size only, not for 12 and 18 channels"):
        ift.plan(spec, "wide", attention="top-k:4")
