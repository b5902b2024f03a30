"""Published models against FlopCounterMode as it comes: equal to the MAC, or apart by operators with a name."""

from __future__ import annotations

import pytest

from tests.support.models.twenty import FIELDS, MORE, TWENTY, compare

EXPERTS = {"mixtral": 2 * 128 * 4, "qwen3-moe": 4 * 128 * 2, "deepseek-v3": 8 * 128 * 1}
"""Experts for each token · tokens · layers that have experts (of DeepSeek's four, the first three are dense)."""

SLOW = {"clip", "mamba2", "falcon-mamba", "deberta-v2", "segformer"}  # together minutes on a busy machine


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in MORE])
def test_totals_are_equal_or_the_difference_has_a_name(name: str) -> None:
    found = compare(name)
    assert not found.unknown
    assert found.ours - found.independent == sum(found.without_formula.values())
    assert set(found.without_formula) == ({"grouped_mm"} if name in EXPERTS else set())


@pytest.mark.parametrize("name", EXPERTS)
def test_what_the_other_counter_misses_is_what_the_experts_cost(name: str) -> None:
    config = TWENTY[name]().config
    width = getattr(config, "moe_intermediate_size", config.intermediate_size)
    missed = compare(name).without_formula["grouped_mm"]
    assert missed == EXPERTS[name] * 3 * config.hidden_size * width  # gate, up and down


def test_every_field_has_its_models() -> None:
    listed = [name for names in FIELDS.values() for name in names]
    assert sorted(listed) == sorted(TWENTY)
    assert len(TWENTY) >= 20
    assert all(
        len(FIELDS[field]) >= 3 for field in ("vision", "text", "speech", "mixture of experts", "state space")
    )
