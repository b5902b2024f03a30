"""Monarch, block tensor-train and Kronecker layers in whole networks: planned, written, audited, scaled, started and trained."""

from __future__ import annotations

from fractions import Fraction
from functools import partial
from math import sqrt
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import iftplan as ift
from iftplan.base.documents import with_digest
from iftplan.base.errors import InputError
from iftplan.models.spec import InputSpec
from iftplan.nn import (
    Masking,
    Static,
    apply,
    build,
    masked_weights,
    measure_applied,
    parameter_groups,
    warm_start_,
)
from iftplan.nn.application.measuring import measure_plan
from iftplan.nn.layers.blocks import BlockProduct, KroneckerSum
from iftplan.nn.masking.algorithms.base import Algorithm
from iftplan.plans.document.plan import parse_plan, plan_document
from iftplan.plans.plan import Plan, Scope
from tests.support.models import applied
from tests.support.sampling import sampled

ENGINES = ("meta", "flop_counter", "fvcore")
HOSTS = {
    **applied.HOSTS,
    "ResNet-8": (partial(build, "zoo:resnet8-cifar", device="cpu"), (InputSpec((2, 3, 32, 32)),)),
}
FAMILIES = ("monarch", "btt", "kronecker", "butterfly")


def host(name: str) -> nn.Module:
    torch.manual_seed(0)
    return HOSTS[name][0]().eval()


def planned(name: str, family: str, sparsity: str | None = "1/2", **options: Any) -> Plan:
    inputs = tuple(str(spec) for spec in HOSTS[name][1])
    spec = ift.read_model(host(name), *inputs, widths=sparsity != "0")
    return ift.plan(spec, family, sparsity, **options)


CHANGES: list[tuple[str, dict[str, Any]]] = [
    ("monarch", {"sparsity": "3/4"}),
    ("btt", {"sparsity": "3/4"}),
    ("kronecker", {"sparsity": "3/4"}),
    ("butterfly", {"sparsity": "3/4"}),
    ("monarch", {"sparsity": "0", "budget": "0.5x"}),
    ("btt", {"sparsity": "1/2", "budget": "1.5x"}),
    ("kronecker", {"sparsity": "1/2", "budget": "1.5x"}),
    ("butterfly", {"sparsity": "1/2", "budget": "0.5x"}),
    ("wide", {"mask": "blockdiag4+shuffle"}),
    ("wide", {"mask": "butterfly16x4"}),
    ("doped", {"mask": "blockdiag4"}),
    ("doped", {"mask": "butterfly32x4"}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "change"), sampled(("gpt3-small", "vit-b16"), CHANGES, of=2))
def test_three_engines_count_the_plan_of_a_transformer(name: str, change: tuple[str, dict[str, Any]]) -> None:
    family, options = change
    plan = ift.plan(ift.read_model(f"zoo:{name}"), family, **options)
    assert parse_plan(plan_document(plan)) == plan
    report = ift.audit(plan, measure_plan(plan, engines=ENGINES))
    assert report.passed, report.problems
    assert set(report.counters) == {"closed_form", *ENGINES}
    assert len(set(report.counters.values())) == 1
    off = 1 - Fraction(plan.macs(Scope.LAYERS), plan.budget_macs(Scope.LAYERS))
    # widths of a pattern grow by 16 of 768 at most, ranks by less than a hundredth of a layer
    assert 0 <= off < (Fraction(2 * 16, 768) if family == "wide" else Fraction(1, 100))
    assert not off or any("unspent" in note for note in plan.notes)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "family"), sampled(("gpt3-small", "vit-b16"), (*FAMILIES, "experts:8x2"), of=2)
)
def test_three_engines_count_the_applied_transformer(name: str, family: str) -> None:
    sparsity = None if family.startswith("experts") else "3/4"
    plan = ift.plan(ift.read_model(f"zoo:{name}"), family, sparsity, scope="model")
    report = measure_applied(plan, apply(plan, build(f"zoo:{name}")), engines=ENGINES)
    assert report.passed, report.problems
    assert set(report.counters.values()) == {plan.macs(Scope.MODEL)}
    assert Fraction(999, 1000) < plan.ratio(Scope.MODEL) <= 1


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("name", "sparsity"),
    [("convolutions", "0"), ("perceptron", "0"), ("GPT-2", "0"), ("ResNet-8", "1/2"), ("GPT-2", "1/2")],
)
def test_an_applied_model_is_its_plan(name: str, sparsity: str, family: str) -> None:
    plan = planned(name, family, sparsity)
    assert bool(plan.widths) == (sparsity != "0")
    assert parse_plan(plan_document(plan)) == plan
    model = apply(plan, host(name))
    assert any(isinstance(module, BlockProduct) for module in model.modules())
    report = measure_applied(plan, model, engines=ENGINES)
    assert report.passed, report.problems


def test_scales_are_those_of_a_blocks_own_inputs() -> None:
    """arXiv 2406.06248, section 3: Adam's rate η/d_in and σ = sqrt(1/d_in)·min(1, sqrt(d_out/d_in)) of each block."""

    dense = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 16))
    plan = ift.plan(ift.read_model(dense, "2x16"), "monarch", "3/4", parametrization="auto")
    assert plan.parametrization.scheme == "supar"
    (row,) = [layer for layer in plan.layers if "rank" in layer.structure]
    rank, scales = row.structure["rank"], plan.parametrization.scales
    assert row.structure["in_channels"] == row.structure["out_channels"] == 128  # four blocks of 32
    assert rank == 8
    u, v = scales["2.U.weight"], scales["2.V.weight"]
    assert (u.learning_rate_multiplier, v.learning_rate_multiplier) == (Fraction(64, 32), Fraction(64, 8))
    assert u.init_std_scale == pytest.approx(sqrt(64 / 32) * sqrt(8 / 32))
    assert v.init_std_scale == pytest.approx(sqrt(64 / 8))
    model = apply(plan, dense)
    assert model[2].U.weight.shape == (4, 8, 32)
    base = sqrt(2 / 64)  # Kaiming's of the dense layer, which the scale multiplies
    assert float(model[2].U.weight.std()) == pytest.approx(base * u.init_std_scale, rel=0.1)
    rates = {id(p): group["lr"] for group in parameter_groups(plan, model, 0.1) for p in group["params"]}
    assert rates[id(model[2].V.weight)] == pytest.approx(0.8)


@pytest.mark.parametrize("family", FAMILIES)
def test_trained_weights_are_projected(family: str) -> None:
    dense, plan = host("perceptron"), planned("perceptron", family, "0")
    model = apply(plan, dense)
    before = float((model(torch.ones(2, 12)) - dense(torch.ones(2, 12))).square().sum())
    warm_start_(model, dense, plan)
    assert float((model(torch.ones(2, 12)) - dense(torch.ones(2, 12))).square().sum()) < before


@pytest.mark.parametrize("family", FAMILIES)
def test_padded_layers_take_trained_biases(family: str) -> None:
    layers = (nn.Linear(9, 11), nn.ReLU(), nn.Linear(11, 7), nn.ReLU(), nn.Linear(7, 3))
    dense = nn.Sequential(*layers)
    plan = ift.plan(ift.read_model(dense, "2x9"), family, "0", budget="1.2x")
    model = apply(plan, dense)
    warm_start_(model, dense, plan)
    bias = model[2].own_bias()
    assert torch.equal(bias[:7], dense.get_parameter("2.bias"))
    assert len(bias) == (7 if family == "kronecker" else 8)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("name", "sparsity"),
    [("perceptron", "0"), ("convolutions", "0"), ("GPT-2", "0"), ("ResNet-8", "1/2"), ("GPT-2", "1/2")],
)
def test_a_hundred_steps_lower_the_loss(name: str, sparsity: str, family: str) -> None:
    torch.manual_seed(0)
    model = apply(planned(name, family, sparsity), host(name)).train()
    before, after = losses(name, model)
    assert after < before / 2
    names = {n for n, p in model.named_parameters() if any(part in n for part in (".U.", ".V.", ".factors."))}
    assert names and all(dict(model.named_parameters())[n].grad is not None for n in names)


@pytest.mark.parametrize(
    ("family", "mask"),
    [
        ("wide", "blockdiag4+shuffle"),
        ("wide", "butterfly16x4"),
        ("doped", "blockdiag4"),
        ("doped", "butterfly16x4"),
    ],
)
def test_a_hundred_steps_with_masks_of_blocks_lower_the_loss(family: str, mask: str) -> None:
    torch.manual_seed(0)
    plan = planned("GPT-2", family, None, mask=mask)
    model = apply(plan, host("GPT-2")).train()
    before, after = losses("GPT-2", model, Static())
    assert after < before / 2
    assert all(bool((w.parameter[~w.mask] == 0).all()) for w in masked_weights(model))
    assert measure_applied(plan, model, engines=ENGINES).passed


def losses(name: str, model: nn.Module, algorithm: Algorithm | None = None) -> tuple[float, float]:
    """Losses of the first and of the last of a hundred steps on one batch."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    masking = Masking(model, optimizer, algorithm) if algorithm else None
    shape = HOSTS[name][1][0].shape
    x = torch.randint(0, 20, shape) if name == "GPT-2" else torch.randn(shape)
    seen = []
    for _ in range(100):
        found = model(x)
        out = getattr(found, "logits", found).flatten(0, -2)
        loss = cross_entropy(out, torch.arange(len(out)) % out.shape[-1])
        optimizer.zero_grad()
        loss.backward()
        if masking:
            masking.step()
        optimizer.step()
        seen.append(float(loss))
    return seen[0], seen[-1]


def test_a_row_says_how_often_weights_are_used() -> None:
    plan = planned("perceptron", "kronecker", "0")
    rows = [layer for layer in plan.layers if layer.reuse != 1]
    assert rows
    assert [row.macs for row in rows] == [row.positions * row.dense_weights * row.reuse for row in rows]
    model = apply(plan, host("perceptron"))
    for row in rows:
        member = model.get_submodule(row.name)
        assert isinstance(member, KroneckerSum)
        weights = [member.get_parameter(f"{part}.weight") for part in member.parts()]
        assert sum(weight.numel() for weight in weights) == row.dense_weights
    document = plan_document(plan)
    (wrong,) = [i for i, row in enumerate(document["layers"]) if row["name"] == rows[0].name]
    document["layers"][wrong]["reuse_exact"] = "1/1"
    with pytest.raises(InputError, match=f"layers.{wrong}.macs is"):
        parse_plan(with_digest(document))
    document["layers"][wrong] |= {"reuse_exact": "1/1", "macs": rows[0].positions * rows[0].dense_weights}
    with pytest.raises(InputError, match=f"layers.{wrong}.reuse_exact is 1, but each weight"):
        parse_plan(with_digest(document))
