"""SμPar: the published table in exact numbers, and activations that stay flat where it is applied."""

from __future__ import annotations

import importlib.util
import sys
from fractions import Fraction
from math import isclose, sqrt
from pathlib import Path
from statistics import mean

import pytest
import torch
from applied_models import host, planned
from torch import nn

import iftplan as ift
from iftplan.errors import InputError, StaleError
from iftplan.nn import apply, masked_weights
from iftplan.nn.parametrize import init_, parameter_groups
from iftplan.supar import TensorRole, parametrization, parametrization_document

CHECK = Path(__file__).parents[1] / "benchmarks" / "coordinate_check.py"


@pytest.fixture(scope="module")
def check():
    spec = importlib.util.spec_from_file_location("coordinate_check", CHECK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # small matrices: more threads wait for one another
    yield module
    torch.set_num_threads(threads)


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 4))


def plan_of(family: str | None, sparsity: str = "3/4", **options):
    return ift.plan(ift.read_model(perceptron(), "2x8"), family, sparsity, scope="matrices", **options)


# --- the table ------------------------------------------------------------------------------------------


def test_wide_at_a_quarter_follows_the_published_table():
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


def test_sgd_follows_the_density_alone():
    found = parametrization(plan_of("wide"), "sgd", scheme="supar").scales["2.weight"]
    assert found.learning_rate_multiplier == 4
    assert found.init_std_scale**2 == pytest.approx(2)


def test_plain_sparsity_has_a_density_and_no_width():
    found = parametrization(plan_of(None)).scales["2.weight"]
    assert (found.width_multiplier, found.fan_in_ratio) == (1, Fraction(1, 4))
    assert (found.init_std_scale, found.learning_rate_multiplier) == (2.0, 4)


def test_at_density_one_nothing_changes():
    for scale in parametrization(plan_of("wide", "0")).scales.values():
        assert scale.init_std_scale == scale.learning_rate_multiplier == scale.output_multiplier == 1


def test_branches_are_one_sum():
    found = parametrization(plan_of("parallel"), scheme="supar").scales
    assert {name for name in found if name.startswith("2.")} == {f"2.branches.{i}.weight" for i in range(4)}
    assert all(found[f"2.branches.{i}.weight"].fan_in_ratio == 1 for i in range(4))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"masks": "dynamic"}, "none of the standard, μP and SμPar transfers"),
        ({"masks": "gradual"}, "none of the standard, μP and SμPar transfers"),
        ({"optimizer": "sgd"}, "Adam-family"),
    ],
)
def test_without_evidence_it_is_the_standard_and_says_so(arguments, said):
    found = parametrization(plan_of("wide"), **arguments)
    assert found.scheme == "standard"
    assert said in found.notes[0]
    assert {
        (s.init_std_scale, s.learning_rate_multiplier, s.output_multiplier) for s in found.scales.values()
    } == {(1, 1, 1)}
    insisted = parametrization(plan_of("wide"), scheme="supar", **arguments)
    assert insisted.scales["2.weight"].init_std_scale != 1
    assert said in insisted.notes[0]


@pytest.mark.parametrize(
    ("name", "family", "said"), [("convolutions", "wide", "BatchNorm"), ("perceptron", "doped", "doped")]
)
def test_hosts_and_families_without_evidence(name, family, said):
    found = parametrization(planned(name, family))
    assert found.scheme == "standard"
    assert said in " ".join(found.notes)


def test_what_is_in_no_tensor_is_in_the_notes():
    found = parametrization(planned("GPT-2", "wide"))
    logits = [note for note in found.notes if note.startswith("logits")]
    embedding = next(s for s in found.scales.values() if s.output_multiplier != 1)
    assert embedding.role is TensorRole.EMBEDDING
    assert embedding.init_std_scale == embedding.learning_rate_multiplier == 1
    assert str(embedding.output_multiplier) in logits[0]
    assert any(note.startswith("attention scores") for note in found.notes)


def test_the_document_is_the_same_every_time():
    first, second = (parametrization_document(parametrization(plan_of("wide"))) for _ in range(2))
    assert first == second
    assert first["scales"]["2.weight"]["fan_in_ratio_exact"] == "1/2"


@pytest.mark.parametrize("given", [{"optimizer": "lion"}, {"masks": "random"}, {"scheme": "mup"}])
def test_unknown_choices_are_refused(given):
    with pytest.raises(InputError, match="is none of"):
        parametrization(plan_of("wide"), **given)


# --- on real tensors ------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["wide", "parallel", "factorized", "doped", "lowrank", None])
@pytest.mark.parametrize("name", ["perceptron", "convolutions", "GPT-2"])
def test_every_parameter_is_in_one_group_and_every_scale_has_a_parameter(name, family):
    plan = planned(name, family)
    model = apply(plan, host(name))
    scales = parametrization(plan, scheme="supar")
    groups = parameter_groups(model, plan, 0.1, scales, weight_decay=0.5)
    grouped = [id(p) for group in groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters())
    assert len({group["lr"] for group in groups}) == len(groups)
    assert {group["weight_decay"] for group in groups} == {0.5}
    assert {w.name for w in masked_weights(model)} <= set(scales.scales)
    base = {id(p) for group in groups if group["lr"] == 0.1 for p in group["params"]}
    assert {id(p) for n, p in model.named_parameters() if n not in scales.scales} <= base
    torch.optim.AdamW(groups)


def test_rates_and_deviations_reach_the_tensors():
    plan = plan_of("wide")
    model = init_(apply(plan, perceptron()), plan, deviation=lambda fans, density: 0.1)
    rates = {id(p): group["lr"] for group in parameter_groups(model, plan, 0.01) for p in group["params"]}
    hidden, last, masks = model[2].weight, model[4].weight, {w.name: w.mask for w in masked_weights(model)}
    kept = hidden[masks["2.weight"]]
    # the deviation of n normal values is known to 1/√(2n); four of those
    assert kept.std().item() == pytest.approx(0.1 * sqrt(2), rel=4 / sqrt(2 * kept.numel()))
    assert last.std().item() == pytest.approx(0.1 / 2, rel=4 / sqrt(2 * last.numel()))
    assert (hidden[~masks["2.weight"]] == 0).all()
    assert (rates[id(hidden)], rates[id(last)], rates[id(model[2].bias)]) == (0.02, 0.005, 0.01)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_folding_the_logits_multiplier_into_the_weight_is_the_same_network(optimizer):
    """x·Wᵀ/μ trained as it stands, against the weight that `parameter_groups` trains."""
    plan = plan_of("wide")
    scales = parametrization(plan, optimizer, scheme="supar")
    folded = init_(apply(plan, perceptron()), plan, scales).double()
    mu = float(scales.scales["4.weight"].fan_in_ratio)
    groups = parameter_groups(folded, plan, 1e-3, scales)
    rate = next(g["lr"] for g in groups if any(p is folded[4].weight for p in g["params"]))
    make = {"adam": lambda p, lr: torch.optim.Adam(p, lr, eps=0), "sgd": torch.optim.SGD}[optimizer]
    x = torch.randn(16, folded[4].in_features, dtype=torch.float64)
    plain = nn.Parameter(folded[4].weight.detach() * mu)
    weight = nn.Parameter(folded[4].weight.detach().clone())
    one, other = make([plain], 1e-3), make([weight], rate)
    for _ in range(5):
        for parameter, logits, stepper in ((plain, x @ plain.T / mu, one), (weight, x @ weight.T, other)):
            parameter.grad = torch.autograd.grad((logits - 1).square().sum(), parameter)[0]
            stepper.step()
    assert torch.allclose(plain / mu, weight, rtol=1e-10)
    assert not torch.allclose(weight, folded[4].weight)


def test_what_does_not_fit_is_refused():
    plan = plan_of("wide")
    with pytest.raises(StaleError, match=r"0\.weight"):
        parameter_groups(nn.Linear(2, 2), plan, 0.1)
    with pytest.raises(InputError, match="learning rate"):
        parameter_groups(apply(plan, perceptron()), plan, 0.0)


def test_a_seed_fixes_the_values():
    plan = planned("perceptron", "wide")
    first, again, other = (
        init_(apply(plan, host("perceptron")), plan, seed=seed).state_dict()["2.weight"] for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


# --- the coordinate check -------------------------------------------------------------------------------

SEEDS = 6
# A ReLU layer of n ≥ 128 gaussian weights a neuron keeps the mean square to a relative deviation of √(5/n) = 0.2;
# four of them √4·0.2 = 0.4, half of that for its root, over √6 seeds 0.08; the ratio to the dense model's 0.12.
# Three deviations either way are flat.
FLAT = 3 * 0.5 * sqrt(4 * 5 / 128) / sqrt(SEEDS) * sqrt(2)


@pytest.fixture(scope="module")
def dense(check):
    return {name: scales(check, "1", name) for name in check.PARAMETRIZATIONS}


def scales(check, density, name):
    plan = check.planned(density)
    setup = check.PARAMETRIZATIONS[name]
    return [check.check(plan, setup, seed, steps=3) for seed in range(SEEDS)]


@pytest.mark.parametrize("density", ["1/2", "1/4", "1/10"])
def test_activations_stay_flat_under_supar_and_shrink_as_predicted_without(check, dense, density):
    rho = float(Fraction(density))
    ratios = {}
    for name in check.PARAMETRIZATIONS:
        sparse = scales(check, density, name)
        for part in ("initial", "trained"):
            ratios[name, part] = mean(getattr(s, part) for s in sparse) / mean(
                getattr(s, part) for s in dense[name]
            )
    # each of four layers sums active fan-in × variance: √ρ at fixed σ, ρ at 1/fan-in, 1 under SμPar
    predicted = {"fixed σ": rho, "1/fan-in": rho**2, "SμPar": 1.0}
    for name, ratio in predicted.items():
        assert isclose(ratios[name, "initial"], ratio, rel_tol=FLAT), (name, ratios)
    assert isclose(ratios["SμPar", "trained"], 1, rel_tol=FLAT), ratios
    assert all(ratios[name, "trained"] < 1 - FLAT for name in ("fixed σ", "1/fan-in")), ratios


def test_the_plot_is_drawn(check, tmp_path):
    pytest.importorskip("matplotlib", reason="plots are drawn with matplotlib")
    every = {(n, d): check.Scales(1, 1, 1) for n in check.PARAMETRIZATIONS for d in check.DENSITIES}
    check.plot(every, str(tmp_path / "plot.svg"))
    assert (tmp_path / "plot.svg").read_text(encoding="utf-8").count("<path") > 10
