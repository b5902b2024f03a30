"""SμPar: the published table in exact numbers, and activations that stay flat where it is applied."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from math import isclose, sqrt
from pathlib import Path
from statistics import mean
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import iftplan as ift
from iftplan.base.documents import with_digest
from iftplan.base.errors import InputError, StaleError
from iftplan.nn import (
    apply,
    densify,
    finalize,
    forward_scales,
    masked_weights,
    measure_applied,
    parameter_groups,
    warm_start_,
)
from iftplan.nn.meta.inputs import make_inputs
from iftplan.plans.document.plan import parse_plan, plan_document
from iftplan.plans.plan import KeptFor, Plan, TensorRole
from iftplan.plans.scaling import parametrization, parametrize
from tests.support.models.applied import HOSTS, answer, host, planned
from tests.support.programs import program


@pytest.fixture(scope="module")
def check() -> Iterator[ModuleType]:
    module = program("coordinate_check")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # small matrices: more threads wait for one another
    yield module
    torch.set_num_threads(threads)


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 4))


def plan_of(family: str | None, sparsity: str = "3/4", **options: Any) -> Plan:
    return ift.plan(ift.read_model(perceptron(), "2x8"), family, sparsity, scope="matrices", **options)


def test_what_a_layer_is_kept_for_is_a_value_and_its_sentence_is_for_people() -> None:
    plan = ift.plan(ift.read_model(perceptron(), "2x8"), "wide", "3/4", parametrization="supar")
    assert [layer.kept_for for layer in plan.layers] == [KeptFor.INPUT, None, KeptFor.OUTPUT]
    assert parse_plan(plan_document(plan)) == plan  # where the sentence is all that is written
    told = tuple(replace(layer, reason="in other words") for layer in plan.layers)
    assert parametrization(replace(plan, layers=told), "supar") == plan.parametrization


# --- the table ------------------------------------------------------------------------------------------


def test_wide_at_a_quarter_follows_the_published_table() -> None:
    found = parametrization(plan_of("wide"))
    first, hidden, last = (found.scales[f"{i}.weight"] for i in (0, 2, 4))
    assert found.scheme == "supar"
    assert (hidden.width_multiplier, hidden.density_multiplier) == (2, Fraction(1, 4))
    assert hidden.fan_in_ratio == Fraction(1, 2)  # √ρ
    assert hidden.init_std_scale**2 == pytest.approx(2)  # σ²/μ
    assert hidden.learning_rate_multiplier == 2
    assert (first.fan_in_ratio, first.init_std_scale, first.learning_rate_multiplier) == (1, 1.0, 1)
    assert (last.role, last.init_std_scale, last.learning_rate_multiplier) == (TensorRole.OUTPUT, 1.0, 1)
    assert last.output_multiplier == Fraction(1, 2)  # 1/m_d


def test_sgd_follows_the_density_alone() -> None:
    found = parametrization(plan_of("wide"), "supar", "sgd").scales["2.weight"]
    assert found.learning_rate_multiplier == 4
    assert found.init_std_scale**2 == pytest.approx(2)


def test_plain_sparsity_has_a_density_and_no_width() -> None:
    found = parametrization(plan_of(None)).scales["2.weight"]
    assert (found.width_multiplier, found.fan_in_ratio) == (1, Fraction(1, 4))
    assert (found.init_std_scale, found.learning_rate_multiplier) == (2.0, 4)


def test_at_density_one_nothing_changes() -> None:
    for scale in parametrization(plan_of("wide", "0")).scales.values():
        assert scale.init_std_scale == scale.learning_rate_multiplier == scale.output_multiplier == 1


def test_branches_are_one_sum() -> None:
    found = parametrization(plan_of("parallel"), "supar").scales
    assert {name for name in found if name.startswith("2.")} == {f"2.branches.{i}.weight" for i in range(4)}
    assert all(found[f"2.branches.{i}.weight"].fan_in_ratio == 1 for i in range(4))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"mask_updates": "dynamic"}, "none of the standard, μP and SμPar transfers"),
        ({"mask_updates": "gradual"}, "none of the standard, μP and SμPar transfers"),
        ({"optimizer": "sgd"}, "Adam-family"),
    ],
)
def test_without_evidence_it_is_the_standard_and_says_so(arguments: dict[str, Any], said: str) -> None:
    found = parametrization(plan_of("wide"), **arguments)
    assert found.scheme == "standard"
    assert said in found.notes[0]
    assert {
        (s.init_std_scale, s.learning_rate_multiplier, s.output_multiplier) for s in found.scales.values()
    } == {(1, 1, 1)}
    insisted = parametrization(plan_of("wide"), "supar", **arguments)
    assert insisted.scales["2.weight"].init_std_scale != 1
    assert said in insisted.notes[0]


@pytest.mark.parametrize(
    ("name", "family", "said"), [("convolutions", "wide", "BatchNorm"), ("perceptron", "doped", "doped")]
)
def test_hosts_and_families_without_evidence(name: str, family: str, said: str) -> None:
    found = parametrization(planned(name, family))
    assert found.scheme == "standard"
    assert said in " ".join(found.notes)


def test_what_is_in_no_tensor_is_in_the_notes() -> None:
    found = parametrization(planned("GPT-2", "wide"))
    logits = [note for note in found.notes if "the logits of" in note]
    embedding = next(s for s in found.scales.values() if s.output_multiplier != 1)
    assert embedding.role is TensorRole.EMBEDDING
    assert embedding.init_std_scale == embedding.learning_rate_multiplier == 1
    assert str(embedding.output_multiplier) in logits[0]
    assert any("attention scores" in note for note in found.notes)


def test_mup_follows_the_width_alone() -> None:
    """The published table's middle column: σ²/m_d, η/m_d, η under SGD, logits over m_d."""
    adam, sgd = (parametrization(plan_of("wide"), "mup", optimizer) for optimizer in ("adam", "sgd"))
    hidden, last = adam.scales["2.weight"], adam.scales["4.weight"]
    assert hidden.init_std_scale**2 == pytest.approx(1 / 2)
    assert hidden.learning_rate_multiplier == Fraction(1, 2)
    assert (hidden.density_multiplier, hidden.fan_in_ratio) == (Fraction(1, 4), Fraction(1, 2))
    assert (last.output_multiplier, sgd.scales["2.weight"].learning_rate_multiplier) == (Fraction(1, 2), 1)
    assert "width alone" in " ".join(adam.notes)


@pytest.mark.parametrize("given", [{"optimizer": "lion"}, {"mask_updates": "random"}, {"asked": "fan-in"}])
def test_unknown_choices_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="is not one of"):
        parametrization(plan_of("wide"), **given)


# --- in the plan's document -----------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["wide", "doped", None])
@pytest.mark.parametrize("asked", ["auto", "supar", "mup"])
def test_a_plan_carries_its_scales_and_reads_them_back(family: str | None, asked: str) -> None:
    plan = plan_of(family, parametrization=asked, optimizer="sgd", mask_updates="dynamic")
    assert plan.parametrization is not None
    assert plan.parametrization.scheme == ("standard" if asked == "auto" else asked)
    assert plan.parametrization.scales.keys() >= {"0.weight", "4.weight"}
    document = plan_document(plan)
    assert parse_plan(document) == plan
    assert document == plan_document(parse_plan(document))


def test_a_plan_without_a_parametrization_has_no_section() -> None:
    plan = plan_of("wide")
    assert parametrize(plan, "standard") == plan
    assert plan_document(plan).keys() == plan_document(parametrize(plan)).keys() - {"parametrization"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda section: section["scales"][1].update(init_std_scale=1.0), "does not follow"),
        (
            lambda section: section["scales"][1].update(learning_rate_multiplier_exact="9/1"),
            "does not follow",
        ),
        (lambda section: section["scales"].pop(), "does not follow"),
        (lambda section: section.update(optimizer="sgd"), "does not follow"),
        (lambda section: section.update(scheme="mup"), "does not follow"),
        (lambda section: section.update(asked="fan-in"), r"parametrization\.asked"),
        (lambda section: section["scales"][0].update(role="head"), r"parametrization\.scales\.0\.role"),
        (lambda section: section.update(more=1), r"parametrization\.more"),
    ],
)
def test_scales_that_do_not_follow_from_the_plan_are_refused(change: Callable[..., Any], said: str) -> None:
    document = plan_document(plan_of("wide", parametrization="supar"))
    change(document["parametrization"])
    del document["digest"]
    with pytest.raises(InputError, match=said):
        parse_plan(with_digest(document))


# --- on real tensors ------------------------------------------------------------------------------------


def applied(name: str, family: str | None, asked: Any = "supar", **options: Any) -> tuple[Plan, nn.Module]:
    plan = parametrize(planned(name, family), asked)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return plan, apply(plan, host(name), **options)


@pytest.mark.parametrize("family", ["wide", "parallel", "factorized", "doped", "lowrank", None])
@pytest.mark.parametrize("name", ["perceptron", "convolutions", "GPT-2"])
def test_every_parameter_is_in_one_group_and_every_scale_has_a_parameter(
    name: str, family: str | None
) -> None:
    plan, model = applied(name, family)
    groups = parameter_groups(plan, model, 0.1, weight_decay=0.5)
    grouped = [id(p) for group in groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters())
    assert len({group["lr"] for group in groups}) == len(groups)
    assert {group["weight_decay"] for group in groups} == {0.5}
    assert all(group["lr"] == pytest.approx(0.1 * group["lr_multiplier"]) for group in groups)
    scales = plan.parametrization.scales
    assert {w.name for w in masked_weights(model)} <= set(scales)
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    for parameter_name, parameter in model.named_parameters():
        scale = scales.get(parameter_name)
        assert rates[id(parameter)] == pytest.approx(
            0.1 * float(scale.learning_rate_multiplier if scale else 1)
        )
    torch.optim.AdamW(groups)


def test_a_plan_without_scales_makes_one_group() -> None:
    for plan in (plan_of("wide"), plan_of("wide", parametrization="auto", mask_updates="dynamic")):
        (group,) = parameter_groups(plan, apply(plan, perceptron()), 0.1)
        assert group["lr"] == 0.1


def test_rates_and_deviations_reach_the_tensors() -> None:
    plan = plan_of("wide", parametrization="auto")
    model = apply(plan, perceptron(), init=lambda fans, density: 0.1)
    rates = {id(p): group["lr"] for group in parameter_groups(plan, model, 0.01) for p in group["params"]}
    hidden, last, masks = model[2].weight, model[4].weight, {w.name: w.mask for w in masked_weights(model)}
    kept = hidden[masks["2.weight"]]
    # the deviation of n normal values is known to 1/√(2n); four of those
    assert kept.std().item() == pytest.approx(0.1 * sqrt(2), rel=4 / sqrt(2 * kept.numel()))
    # kept dense: that of the dense model, which PyTorch draws from U(±1/√64), and at which its scale of 1 leaves it
    assert last.std().item() == pytest.approx(1 / sqrt(3 * 64), rel=8 / sqrt(2 * last.numel()))
    assert (hidden[~masks["2.weight"]] == 0).all()
    assert (rates[id(hidden)], rates[id(last)], rates[id(model[2].bias)]) == (0.02, 0.01, 0.01)


def test_deviations_are_those_of_the_dense_layer() -> None:
    plan = plan_of("wide", parametrization="supar")
    model = apply(plan, perceptron())
    kept = model[2].weight[model[2].weight_mask]
    # Kaiming's fan-out of the dense layer, 64, and not of the wide one, 128
    assert kept.std().item() == pytest.approx(sqrt(2 / 64) * sqrt(2), rel=4 / sqrt(2 * kept.numel()))


def test_kept_weights_are_scaled_by_their_fan_in() -> None:
    dense, plan = perceptron(), plan_of(None, parametrization="auto")
    model = apply(plan, dense)
    assert torch.equal(model[2].weight, dense[2].weight * model[2].weight_mask * 2)  # 1/√(1/4)
    assert torch.equal(model[0].weight, dense[0].weight)
    assert torch.equal(apply(plan, dense, init=None)[2].weight, dense[2].weight * model[2].weight_mask)


@pytest.mark.parametrize("name", ["perceptron", "GPT-2", "BERT"])
def test_at_density_one_the_model_is_the_dense_one_bit_for_bit(name: str) -> None:
    plan = parametrize(planned(name, "wide", "0"))
    dense, model = host(name), finalize(apply(plan, host(name)))
    assert torch.equal(answer(model.eval(), name), answer(dense.eval(), name))


def test_what_does_not_fit_is_refused() -> None:
    plan = plan_of("wide", parametrization="supar")
    with pytest.raises(StaleError, match=r"0\.weight"):
        parameter_groups(plan, nn.Linear(2, 2), 0.1)
    with pytest.raises(InputError, match="learning rate"):
        parameter_groups(plan, apply(plan, perceptron()), 0.0)
    with pytest.raises(InputError, match="corrects for the masks"):
        apply(plan, perceptron(), init="density")


def test_a_seed_fixes_the_values() -> None:
    first, again, other = (applied("perceptron", "wide", seed=seed)[1].state_dict() for seed in (1, 1, 2))
    assert torch.equal(first["2.weight"], again["2.weight"])
    assert not torch.equal(first["2.weight"], other["2.weight"])


# --- in the forward pass --------------------------------------------------------------------------------

HEADS = {"perceptron": "4", "GPT-2": "lm_head", "BERT": "cls.predictions.decoder"}


def by_hand(plan: Plan, name: str) -> nn.Module:
    """The same weights and masks in a model without scales in its forward pass, where hooks stand for them."""
    model = apply(parametrize(plan, "standard"), host(name))
    scaled = apply(plan, host(name)).state_dict()
    model.load_state_dict({k: v for k, v in scaled.items() if not k.endswith("output_multiplier")})
    multiplier = next(m for s in plan.parametrization.scales.values() if (m := s.output_multiplier) != 1)
    head = model.get_submodule(HEADS[name])
    bias = 0 if head.bias is None else head.bias
    head.register_forward_hook(lambda module, given, out: (out - bias) * float(multiplier) + bias)
    heads: list[Any] = [module for module in model.modules() if hasattr(module, "scaling")]
    for module in heads:
        module.scaling = sqrt(8) / round(module.scaling**-2)  # heads had the size 8
    return model


@pytest.mark.parametrize("change", [finalize, densify, copy.deepcopy], ids=["finalize", "densify", "copy"])
@pytest.mark.parametrize("name", list(HEADS))
def test_logits_and_attention_are_scaled_and_stay_so(name: str, change: Callable[..., Any]) -> None:
    plan, model = applied(name, "wide", "auto")
    plain = apply(parametrize(plan, "standard"), host(name))
    wanted, changed = answer(by_hand(plan, name).eval(), name), change(model)
    torch.testing.assert_close(answer(changed.eval(), name), wanted)
    assert not torch.allclose(answer(plain.eval(), name), wanted, rtol=0.1)
    multiplier = changed.get_submodule(HEADS[name]).output_multiplier
    assert 0 < float(multiplier) < 1
    if name != "perceptron":
        heads: list[Any] = [m for m in plain.modules() if hasattr(m, "scaling")]
        sizes = [round(m.scaling**-2) for m in heads]
        scales = [m.scaling for m in changed.modules() if hasattr(m, "scaling")]
        assert sizes
        assert scales == pytest.approx([sqrt(8) / size for size in sizes])


@pytest.mark.parametrize("name", list(HEADS))
def test_a_state_dict_carries_the_multiplier_and_a_model_without_it_says_so(name: str) -> None:
    plan, model = applied(name, "wide", "auto")
    other = applied(name, "wide", "auto", seed=5)[1]
    other.load_state_dict(model.state_dict())
    assert torch.equal(answer(other.eval(), name), answer(model.eval(), name))
    with pytest.raises(RuntimeError, match="output_multiplier"):
        apply(parametrize(plan, "standard"), host(name)).load_state_dict(model.state_dict())


def test_a_tied_head_stays_tied_and_only_its_logits_are_scaled() -> None:
    _, model = applied("GPT-2", "wide", "auto")
    assert model.lm_head.weight is model.transformer.wte.weight
    assert isinstance(model.lm_head, nn.Linear)
    assert model.transformer.wte.weight.std().item() == pytest.approx(0.02, rel=0.2)


def test_a_bias_of_the_logits_is_not_scaled() -> None:
    _, model = applied("perceptron", "wide", "auto")
    with torch.no_grad():
        model[4].weight.zero_()
        model[4].bias.fill_(3.0)
    assert (answer(model.eval(), "perceptron") == 3).all()


@pytest.mark.parametrize("name", ["perceptron", "GPT-2"])
def test_exported_compiled_and_in_half_precision_it_answers_the_same(name: str) -> None:
    model = finalize(applied(name, "wide", "auto")[1]).eval()
    args, kwargs = make_inputs(HOSTS[name][1], "cpu")
    torch.compiler.reset()
    compiled: Any = torch.compile(model, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(answer(compiled.eval(), name), answer(model.eval(), name))
    if name == "perceptron":
        exported = torch.export.export(model, args, kwargs).module()
        torch.testing.assert_close(exported(*args), model(*args))
        assert model.to(torch.bfloat16)(torch.randn(4, 12, dtype=torch.bfloat16)).dtype is torch.bfloat16


class Past(nn.Module):
    """A head whose weight the model uses by itself, and attention without a scale of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.attention = nn.Linear(6, 16), nn.MultiheadAttention(16, 2, batch_first=True)
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        x = x + self.attention(x, x, x, need_weights=False)[0]
        return nn.functional.linear(x, self.head.weight, self.head.bias)


def test_what_cannot_be_scaled_is_said_by_name() -> None:
    plan = ift.plan(ift.read_model(Past(), "2x5x6"), "wide", "3/4", scope="matrices", parametrization="auto")
    found = forward_scales(plan, Past())
    assert not found.logits
    assert not found.attention
    logits, attention = found.by_hand
    assert "head.weight are not multiplied by 1/2" in logits
    assert "products of attention keep their scale" in attention
    with pytest.warns(UserWarning) as said:
        model = apply(plan, Past())
    assert {str(warning.message) for warning in said} == {logits, attention}
    assert type(model.head) is nn.Linear


@pytest.mark.parametrize("name", ["GPT-2", "Llama, grouped queries"])
def test_nothing_is_said_where_everything_is_scaled(name: str) -> None:
    plan = parametrize(planned(name, "wide"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        apply(plan, host(name))
    found = forward_scales(plan, host(name))
    assert set(found.logits) == {"lm_head"}
    assert not found.by_hand
    assert bool(found.attention) is (name == "GPT-2")  # rotary embeddings keep the size of a head


def test_trained_weights_are_not_started_under_other_scales() -> None:
    plan, model = applied("perceptron", "wide", "auto")
    with pytest.raises(InputError, match="would change the function"):
        warm_start_(model, host("perceptron"), plan)
    standard = parametrize(planned("convolutions", "wide"), "auto")  # asked for, and not there
    warm_start_(apply(standard, host("convolutions"), nonlinear=False), host("convolutions"), standard)


def test_audits_see_no_difference() -> None:
    for name in HEADS:
        plan, model = applied(name, "wide", "auto")
        report = measure_applied(plan, model, engines=("meta", "fvcore", "flop_counter"))
        assert report.passed, report.problems
        assert len(set(report.counters.values())) == 1


# --- the coordinate check -------------------------------------------------------------------------------

SEEDS = 6
# A ReLU layer of n ≥ 128 gaussian weights a neuron keeps the mean square to a relative deviation of √(5/n) = 0.2;
# four of them √4·0.2 = 0.4, half of that for its root, over √6 seeds 0.08; the ratio to the dense model's 0.12.
# Three deviations either way are flat.
FLAT = 3 * 0.5 * sqrt(4 * 5 / 128) / sqrt(SEEDS) * sqrt(2)


@pytest.fixture(scope="module")
def dense(check: ModuleType) -> dict[str, list[Any]]:
    return {name: scales(check, "1", name) for name in check.PARAMETRIZATIONS}


def scales(check: ModuleType, density: str, name: str) -> list[Any]:
    setup = check.PARAMETRIZATIONS[name]
    return [check.check(density, setup, seed, steps=3) for seed in range(SEEDS)]


@pytest.mark.parametrize("density", ["1/2", "1/4", "1/10"])
def test_activations_stay_flat_under_supar_and_shrink_as_predicted_without(
    check: ModuleType, dense: dict[str, list[Any]], density: str
) -> None:
    rho = float(Fraction(density))
    ratios = {}
    for name in check.PARAMETRIZATIONS:
        sparse = scales(check, density, name)
        for part in ("initial", "trained"):
            ratios[name, part] = mean(getattr(s, part) for s in sparse) / mean(
                getattr(s, part) for s in dense[name]
            )
    # each of four layers sums active fan-in × variance: √ρ at fixed σ, ρ at 1/fan-in and under μP, 1 under SμPar
    predicted = {"fixed σ": rho, "1/fan-in": rho**2, "μP": rho**2, "SμPar": 1.0}
    for name, ratio in predicted.items():
        assert isclose(ratios[name, "initial"], ratio, rel_tol=FLAT), (name, ratios)
    assert isclose(ratios["SμPar", "trained"], 1, rel_tol=FLAT), ratios
    assert all(ratios[name, "trained"] < 1 - FLAT for name in predicted if name != "SμPar"), ratios


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_the_plot_is_drawn(check: Any, tmp_path: Path, suffix: str) -> None:
    pytest.importorskip("matplotlib", reason="plots are drawn with matplotlib")
    every = {(n, d): check.Scales(1, 1, 1) for n in check.PARAMETRIZATIONS for d in check.DENSITIES}
    place = tmp_path / f"plot.{suffix}"
    check.plot(every, str(place))
    drawn = place.read_bytes()
    assert drawn.startswith(b"\x89PNG") if suffix == "png" else drawn.count(b"<path") > 10
