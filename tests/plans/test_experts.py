"""Plans of mixtures of experts, held against a calculator written apart."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from math import ceil, comb, log2
from pathlib import Path
from typing import Any

import pytest

import iftplan as ift
from iftplan.base.documents import with_digest
from iftplan.base.errors import InfeasibleError, InputError
from iftplan.families.transforms.experts import Mixture, parse_mixture
from iftplan.models.feed_forward import feed_forwards
from iftplan.models.spec import InputSpec, Kind, LayerSpec, ModelSpec, WeightLayer
from iftplan.plans.document.plan import parse_plan, plan_document
from iftplan.plans.experts import size_of
from iftplan.plans.plan import Plan, Role, Scope

Block = tuple[int, int, int, int]
"""Model width, hidden width, tokens and number of matrices."""


def linear(name: str, inputs: int, outputs: int, tokens: int) -> WeightLayer:
    layer = LayerSpec(name, Kind.LINEAR, inputs, outputs, positions=tokens)
    return WeightLayer(layer, f"{name}.weight", "Linear")


def network(blocks: Sequence[Block]) -> ModelSpec:
    layers = [replace(linear("stem", 5, blocks[0][0], blocks[0][2]), first=True)]
    for i, (m, n, tokens, g) in enumerate(blocks):
        layers += [linear(f"h.{i}.mlp.up{j}", m, n, tokens) for j in range(g - 1)]
        layers.append(linear(f"h.{i}.mlp.down", n, m, tokens))
    return ModelSpec("", (InputSpec((1, 5)),), tuple(layers), fingerprint="0" * 64)


def cost_by_hand(block: Block, mixture: Mixture, wide: int) -> int:
    """MACs of a block, expert by expert and row by row."""
    m, _, tokens, g = block
    macs = tokens * m * mixture.experts
    each = tokens * mixture.top_k
    if mixture.capacity is not None:
        room = ceil(Fraction(mixture.top_k * tokens, mixture.experts) * mixture.capacity)
        each = sum(room for _ in range(mixture.experts))
    one = sum(m * wide for _ in range(2 if mixture.ungated else g))
    return macs + each * one + mixture.shared * tokens * one


def drawn(draw: random.Random) -> tuple[Block, Mixture, int]:
    experts = draw.randint(1, 64)
    capacity = draw.choice([None, None, Fraction(1), Fraction(5, 4), Fraction(2)])
    mixture = Mixture(
        experts, draw.randint(1, min(experts, 8)), draw.randint(0, 2), capacity, draw.random() < 0.3
    )
    m, tokens, g = draw.randint(2, 700), draw.randint(1, 300), draw.choice([2, 3])
    least = 4 * (mixture.top_k * 2 + mixture.shared) + 2 * experts
    if capacity is not None:
        least += experts * 20 // tokens + 2 * experts
    return (m, draw.randint(least, 20 * least), tokens, g), mixture, draw.randint(1, 4)


def widths(plan: Plan) -> list[int]:
    return [x.after.in_channels or 0 for x in plan.layers if x.name.endswith("mlp.down") and x.after]


def test_a_thousand_random_mixtures_cost_what_a_calculator_written_apart_says() -> None:
    draw = random.Random(20)
    for i in range(1000):
        block, mixture, copies = drawn(draw)
        spec = network([block] * copies)
        plan = ift.plan(spec, str(mixture))
        found = widths(plan)
        by_hand = [cost_by_hand(block, mixture, wide) for wide in found]
        stem = 5 * block[0] * block[2]
        dense = stem + copies * block[3] * block[0] * block[1] * block[2]
        assert plan.macs(Scope.LAYERS) == stem + sum(by_hand)
        assert plan.dense_macs(Scope.LAYERS) == dense
        one_more = cost_by_hand(block, mixture, found[0] + 1) - by_hand[0]
        assert plan.residual_macs == dense - stem - sum(by_hand)
        assert 0 <= (plan.residual_macs or 0) < one_more, (block, mixture)
        assert max(found) - min(found) <= 1
        size, (m, _, _, g) = size_of(plan.layers, mixture), block
        g = 2 if mixture.ungated else g
        every = sum(m * mixture.experts + (mixture.experts + mixture.shared) * g * m * w for w in found)
        met = sum(m * mixture.experts + (mixture.top_k + mixture.shared) * g * m * w for w in found)
        assert (size.blocks, size.total, size.active) == (copies, every + 5 * m, met + 5 * m)
        assert size.log2_choices == pytest.approx(copies * log2(comb(mixture.experts, mixture.top_k)))
        assert i % 20 or parse_plan(plan_document(plan)) == plan


def test_one_expert_costs_what_the_dense_block_does() -> None:
    """The router takes the cost of E/(g·k) channels, so half a channel of every block; whole blocks close it."""
    block = (64, 256, 32, 2)
    plan = ift.plan(network([block] * 4), "experts:1x1")
    assert widths(plan) == [256, 255, 256, 255]
    assert plan.residual_macs == 0
    experts = [layer for layer in plan.layers if layer.role is Role.TRANSFORMED]
    assert {layer.experts for layer in experts} == {1}
    assert all(layer.positions == 32 for layer in experts)


@pytest.mark.parametrize(("experts", "width", "depth"), [(8, 64, 3), (32, 48, 2), (1, 96, 4)])
def test_weights_are_those_of_joint_scaling_laws(experts: int, width: int, depth: int) -> None:
    """N_total = (4 + 9E)·L·d² and N_act = 13·L·d² for SwiGLU experts 3d wide, k = 1 (arXiv 2502.05172, appendix A).

    Routers are not in these numbers, nor is the dense block, which is chosen so that an expert is 3d wide.
    """
    layers: list[WeightLayer] = []
    for i in range(depth):
        layers += [linear(f"h.{i}.attention.{name}", width, width, 16) for name in "qkvo"]
        layers += [linear(f"h.{i}.mlp.{name}", width, 3 * width, 16) for name in ("gate", "up")]
        layers.append(linear(f"h.{i}.mlp.down", 3 * width, width, 16))
    spec = ModelSpec("", (InputSpec((1, 5)),), tuple(layers), fingerprint="0" * 64)
    dearer = 16 * depth * width * experts  # the routers' cost
    plan = ift.plan(spec, f"experts:{experts}x1", budget=spec.macs + dearer)
    size = size_of(plan.layers, Mixture(experts, 1))
    routers = depth * width * experts
    assert plan.residual_macs == 0
    assert size.total - routers == (4 + 9 * experts) * depth * width**2
    assert size.active - routers == 13 * depth * width**2


@pytest.mark.parametrize(
    ("model_width", "experts", "width", "depth"),
    [(768, 48, 64, 16), (1792, 56, 128, 35)],
    ids=["0.1B", "1.2B"],
)
def test_weights_are_those_of_blockffn_s_models(
    model_width: int, experts: int, width: int, depth: int
) -> None:
    """The configurations of arXiv 2507.08771: ungated experts and a ReLU router, at the budget that they cost."""
    tokens, met = 4, experts // 5
    spec = network([(model_width, 4 * model_width, tokens, 3)] * depth)
    each = model_width * experts + met * 2 * model_width * width
    stem = 5 * model_width
    plan = ift.plan(spec, f"experts:{experts}x{met}:relu:ungated", budget=tokens * (stem + depth * each))
    assert set(widths(plan)) == {width}
    assert plan.residual_macs == 0
    assert plan.mixture is not None
    size = size_of(plan.layers, plan.mixture)
    assert size.total == stem + depth * experts * model_width * (1 + 2 * width)
    assert size.active == stem + depth * each
    assert size.log2_choices == depth * experts


def test_gpt3_small_and_vit_b_close_to_the_mac() -> None:
    for model, wide in (("zoo:gpt3-small", 1534), ("zoo:vit-b16", 1534)):
        plan = ift.plan(model, "experts:8x2")
        found = {x.after.out_channels for x in plan.layers if x.role is Role.TRANSFORMED and x.after}
        assert found == {wide, 768}  # (2·3072 - 8)/(2·2)
        assert plan.residual_macs == 0
        assert plan.ratio(Scope.MODEL) == 1
        assert sum(x.role is Role.ADDED for x in plan.layers) == 12


def test_gated_blocks_have_experts_of_three_matrices() -> None:
    plan = ift.plan(network([(64, 256, 32, 3)]), "experts:6x2+1")
    assert widths(plan) == [(3 * 256 - 6) // (3 * 3)]
    assert [x.name for x in plan.layers if x.role is Role.ADDED] == [
        "h.0.mlp.router",
        "h.0.mlp.shared.up0",
        "h.0.mlp.shared.up1",
        "h.0.mlp.shared.down",
    ]


def test_ungated_experts_have_two_matrices_in_gated_blocks_and_removed_gates_cost_nothing() -> None:
    plan = ift.plan(network([(64, 256, 32, 3)]), "experts:6x2+1:ungated")
    assert widths(plan) == [(3 * 256 - 6) // (2 * 3)]
    assert any("w = (g·n - E)/(G·(k + h)) = (3·256 - 6)/(2·(2 + 1)) = 127" in note for note in plan.notes)
    assert plan.residual_macs == 0
    (gone,) = [x for x in plan.layers if x.role is Role.REMOVED]
    assert (gone.name, gone.macs, gone.dense_macs, gone.after) == ("h.0.mlp.up1", 0, 32 * 64 * 256, None)
    assert [x.name for x in plan.layers if x.role is Role.ADDED] == [
        "h.0.mlp.router",
        "h.0.mlp.shared.up0",
        "h.0.mlp.shared.down",
    ]
    assert plan.ratio(Scope.MATRICES) == 1
    plain = network([(64, 256, 32, 2)])
    assert widths(ift.plan(plain, "experts:6x2:ungated")) == widths(ift.plan(plain, "experts:6x2"))


def test_a_budget_a_multiple_and_a_module_are_met() -> None:
    spec = network([(64, 512, 32, 2)] * 3)
    half = ift.plan(spec, "experts:8x2", budget="0.5x")
    assert 0 <= (half.residual_macs or 0) < 2 * 64 * 32 * 2
    tens = ift.plan(spec, "experts:8x2", round_to=10)
    assert all(wide % 10 == 0 for wide in widths(tens))
    inside = ift.plan(spec, "experts:8x2", within="h.1")
    changed = [x.name for x in inside.layers if x.role is Role.TRANSFORMED]
    assert changed == ["h.1.mlp.up0", "h.1.mlp.down"]
    kept = ift.plan(spec, "experts:8x2", keep_dense=["h.2.mlp.down"])
    assert [x.name for x in kept.layers if x.role is Role.ADDED] == ["h.0.mlp.router", "h.1.mlp.router"]


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"family": "experts:300x300"}, InfeasibleError, "Take fewer experts or a larger budget"),
        ({"family": "experts:8x2", "sparsity": "3/4"}, InputError, "keeps every weight"),
        ({"family": "experts:8x2", "parametrization": "mup"}, InputError, "initial scales of a mixture"),
        ({"family": "experts:8x2", "keep_dense": ["h.0.mlp.up0"]}, InfeasibleError, "no feed-forward block"),
        ({"family": "experts:8x2", "close": "width"}, InputError, "family that widens"),
    ],
)
def test_what_cannot_be_planned_is_refused(
    options: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        ift.plan(network([(16, 64, 4, 2)]), **options)


def test_the_smallest_budget_that_a_refusal_names_is_feasible() -> None:
    spec = network([(16, 64, 4, 2)])
    with pytest.raises(InfeasibleError) as refused:
        ift.plan(spec, "experts:300x300")
    least = str(refused.value).rpartition("budget='")[2].partition("'")[0]
    assert ift.plan(spec, "experts:300x300", budget=least).residual_macs == 0
    with pytest.raises(InfeasibleError):
        ift.plan(spec, "experts:300x300", budget=int(least) - 1)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: d["experts"].update(mixture="experts:4x2"), "layers"),
        (lambda d: d["experts"].update(total_weights=1), "experts does not follow"),
        (lambda d: d["layers"][2].update(structure={"experts": 8, "chosen": 3}), "structure is not that of"),
        (lambda d: d["layers"][3].update(role="removed", after=""), "removes no layers"),
        (lambda d: d.update(transform="parallel"), "do not go with transform"),
        (lambda d: d.pop("experts"), "do not go with transform"),
    ],
)
def test_a_plan_that_contradicts_itself_is_refused(change: Any, says: str) -> None:
    document = dict(plan_document(ift.plan(network([(16, 64, 4, 2)]), "experts:8x2")))
    change(document)
    document.pop("digest")
    with pytest.raises(InputError, match=says):
        parse_plan(with_digest(document))


def test_a_plan_is_saved_and_read(tmp_path: Path) -> None:
    plan = ift.plan("zoo:gpt-char", "experts:8x2:capacity=1.25")
    ift.save(plan, str(tmp_path / "plan.json"))
    assert ift.load(str(tmp_path / "plan.json")) == plan
    assert plan.mixture == parse_mixture("experts:8x2:capacity=1.25")


# --- feed-forward blocks ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "count", "module", "hidden"),
    [
        ("zoo:gpt3-small", 12, "transformer.h.0.mlp", 3072),
        ("zoo:vit-b16", 12, "vit.layers.0.mlp", 3072),
        ("zoo:bert-small", 0, "", 0),  # whose two layers lie in modules of their own
        ("zoo:resnet18", 0, "", 0),
    ],
)
def test_feed_forward_blocks_are_found(model: str, count: int, module: str, hidden: int) -> None:
    found = list(feed_forwards(ift.read_model(model)))
    assert len(found) == count
    assert [(b.module, b.hidden_width) for b in found[:1]] == ([(module, hidden)] if count else [])


def test_what_only_looks_like_a_block_is_none() -> None:
    spec = network([(16, 64, 4, 2), (16, 64, 4, 2)])
    names = [block.module for block in feed_forwards(spec)]
    assert names == ["h.0.mlp", "h.1.mlp"]
    assert all(a < b for a, b in pairwise(names))
    narrow = replace(spec.layers[2], layer=replace(spec.layers[2].layer, out_channels=17))
    more = linear("h.1.mlp.extra.deep", 16, 16, 4)
    other = replace(spec, layers=(*spec.layers[:2], narrow, *spec.layers[3:], more))
    assert list(feed_forwards(other)) == []
