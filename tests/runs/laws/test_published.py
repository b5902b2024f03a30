"""Laws against the figures that their papers print."""

from __future__ import annotations

from math import exp, log

import pytest

from iftplan.base.errors import InfeasibleError, InputError
from iftplan.runs.laws.activation import ACTIVATION
from iftplan.runs.laws.average import average_density
from iftplan.runs.laws.budget import Optimum, optimum
from iftplan.runs.laws.dense import DENSE
from iftplan.runs.laws.experts import saturated
from iftplan.runs.laws.fine_grained import FINE_GRAINED
from iftplan.runs.laws.joint_moe import JOINT_MOE, ExpertShape
from iftplan.runs.laws.law import Law
from iftplan.runs.laws.moe_sparsity import MOE_SPARSITY
from iftplan.runs.laws.named import FITS, published
from iftplan.runs.laws.routed import ROUTED, dense_equivalent
from iftplan.runs.laws.sparse import LAWS

EVERY = [pytest.param(law, id=f"{name}-{fit}") for name, fits in FITS.items() for fit, law in fits.items()]


def joint(compute: float, experts: float, served: float = 0.0, most: float | None = None) -> Optimum:
    return optimum(
        lambda n, d: JOINT_MOE.loss(params=n, data=d, experts=experts), compute, served=served, most=most
    )


# --- arXiv 2502.05172 ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("compute", "experts", "params", "tokens", "digits"),
    [
        (1e20, 1, 1.7e9, 9.7e9, 0.03),
        (1e20, 8, 0.99e9, 17e9, 0.03),
        (1e20, 32, 0.669e9, 24.9e9, 0.01),
        (1e21, 1, 5.7e9, 29.3e9, 0.01),
        (1e22, 32, 12.2e9, 136.9e9, 0.01),
    ],
)
def test_optima_of_table_1_of_arxiv_2502_05172(
    compute: float, experts: float, params: float, tokens: float, digits: float
) -> None:
    found = joint(compute, experts)
    assert found.params == pytest.approx(params, rel=digits)
    assert found.data == pytest.approx(tokens, rel=digits)
    assert 6 * found.params * found.data == pytest.approx(compute)


def test_the_joint_law_reduces_to_the_dense_one_that_the_paper_prints() -> None:
    """The paper's m(1) = 30.364, n(1) = 53.984, which rounded constants meet within 3 in 1 000."""
    k = JOINT_MOE.constants
    start = saturated(1, k["E_start"], k["E_max"])
    assert k["a"] * start ** k["delta"] == pytest.approx(30.364, rel=3e-3)
    assert k["alpha"] + k["gamma"] * log(start) == pytest.approx(-0.1818, abs=5e-5)
    assert k["b"] * start ** k["omega"] == pytest.approx(53.984, rel=3e-3)
    assert k["beta"] + k["zeta"] * log(start) == pytest.approx(-0.1964, abs=5e-5)


@pytest.mark.parametrize("experts", [2, 4, 8])
def test_up_to_eight_experts_beat_the_dense_model_of_as_many_parameters_in_all(experts: float) -> None:
    """The paper's rule: equal total parameters, E times the tokens of a compute-optimal dense model."""
    shape = ExpertShape()
    for compute in (1e20, 1e21, 1e22):
        dense = joint(compute, 1)
        active = shape.largest(shape.total(shape.width(dense.params), 1), experts, 0)
        assert shape.total(shape.width(active), experts) == pytest.approx(dense.params)
        moe = JOINT_MOE.loss(params=active, data=experts * dense.data, experts=experts)
        assert moe < dense.loss


def test_memory_and_inference_bind() -> None:
    shape, memory, context = ExpertShape(), 2e9, 8192
    free = joint(1e21, 8)
    most = shape.largest(memory, 8, context)
    bound = joint(1e21, 8, most=most)
    assert bound.params == pytest.approx(most)
    assert bound.params < free.params
    width = shape.width(most)
    layers = width / 64
    total = 2 * width * 50257 + (4 + 9 * 8) * layers * width**2
    assert total + 2 * context * layers * width == pytest.approx(memory)
    served = joint(1e21, 8, served=1e11)
    assert 6 * served.params * served.data + 2 * served.params * 1e11 == pytest.approx(1e21)
    assert served.params < free.params, "inference is paid for each parameter"


def test_active_parameters_of_appendix_a() -> None:
    shape = ExpertShape(vocabulary=100, aspect=16)
    assert shape.active(32) == 2 * 32 * 100 + 13 * 2 * 32**2
    assert shape.total(32, 4) == 2 * 32 * 100 + (4 + 36) * 2 * 32**2
    assert shape.total(32, 1) == shape.active(32)
    assert shape.width(shape.active(32)) == pytest.approx(32)


# --- arXiv 2202.01169, 2402.07871, 2501.12370, 2501.12486, 2411.02335 -----------------------------------------


@pytest.mark.parametrize("router", ROUTED)
def test_one_expert_is_the_dense_model_and_more_are_worth_more(router: str) -> None:
    law = ROUTED[router]
    assert dense_equivalent(law, 1e9, 1) == pytest.approx(1e9)
    worth = [dense_equivalent(law, 1e8, experts) for experts in (1, 2, 8, 64, 512)]
    assert worth == sorted(worth)
    big = law.loss(params=dense_equivalent(law, 1e8, 64), experts=1)
    assert big == pytest.approx(law.loss(params=1e8, experts=64))


def test_constants_of_the_three_routers() -> None:
    assert {name: tuple(law.constants.values()) for name, law in ROUTED.items()} == {
        "s-base": (-0.082, -0.108, 0.009, 1.104, 1.847, 314.478),
        "rl-r": (-0.083, -0.126, 0.012, 1.111, 1.880, 469.982),
        "hash": (-0.087, -0.136, 0.012, 1.157, 4.175, 477.741),
    }
    experts = 1 / (1 / (7 + 1 / (1 / 1.847 - 1 / 314.478)) + 1 / 314.478)
    by_hand = 10 ** (-0.082 * 9 - 0.108 * log(experts, 10) + 0.009 * 9 * log(experts, 10) + 1.104)
    assert ROUTED["s-base"].loss(params=1e9, experts=8) == pytest.approx(by_hand)


def test_finer_experts_are_better_at_equal_size() -> None:
    law = FINE_GRAINED["moe"]
    by_hand = 0.47 + (2.1 / 8**0.58 + 18.1) / 1e9**0.115 + 30.8 / 1e10**0.147
    assert law.loss(params=1e9, data=1e10, granularity=8) == pytest.approx(by_hand)
    losses = [law.loss(params=1e9, data=1e10, granularity=g) for g in (1, 2, 4, 8, 16)]
    assert losses == sorted(losses, reverse=True)
    dense = FINE_GRAINED["dense"].loss(params=1e9, data=1e10)
    assert dense == pytest.approx(0.47 + 16.3 / 1e9**0.126 + 26.7 / 1e10**0.127)


def test_the_law_by_sparsity_at_a_point_by_hand() -> None:
    found = MOE_SPARSITY.loss(params=1e9, data=1e10, sparsity=0.75)
    by_hand = (
        16612.50 / 1e9**0.5962
        + 5455.67 / 1e10**0.3954
        + 0.4598 / 0.25**-0.1666
        + 17.26 / (0.25**0.1603 * 1e9**0.1595)
        + 0.94
    )
    assert found == pytest.approx(by_hand)


@pytest.mark.parametrize(
    ("final", "steps", "begin", "end", "geometric", "linear", "cubic", "card"),
    [
        (0.8, 11200, 2500, 8100, 0.8928, 0.8946, 0.8696, 0.8919),
        (0.6, 13050, 2500, 8875, 0.7660, 0.7743, 0.7255, 0.7651),
    ],
)
def test_average_density_of_the_sparse_models_of_arxiv_2501_12486(
    final: float, steps: int, begin: int, end: int, geometric: float, linear: float, cubic: float, card: float
) -> None:
    """The cards of the published models have the average density, which a geometric decay meets within .001."""
    times = begin / steps, end / steps
    assert average_density(final, *times) == pytest.approx(geometric, abs=1e-4)
    assert average_density(final, *times, "linear") == pytest.approx(linear, abs=1e-4)
    assert average_density(final, *times, "cubic") == pytest.approx(cubic, abs=1e-4)
    assert average_density(final, *times) == pytest.approx(card, abs=1.1e-3)
    assert abs(average_density(final, *times, "cubic") - card) > 0.02


def test_cards_of_arxiv_2501_12486_have_equal_training_compute() -> None:
    """Average density times steps is one number: the sparser model sees more tokens."""
    cards = {11200: (0.8919, 0.8, 2500, 8100), 13050: (0.7651, 0.6, 2500, 8875)}
    spent = [steps * density for steps, (density, *_) in cards.items()]
    assert spent[0] == pytest.approx(spent[1], rel=1e-3)
    ours = [steps * average_density(f, a / steps, b / steps) for steps, (_, f, a, b) in cards.items()]
    assert ours[0] == pytest.approx(ours[1], rel=1e-3)


@pytest.mark.parametrize("decay", ["geometric", "linear", "cubic"])
def test_average_density_is_the_mean_over_many_steps(decay: str) -> None:
    steps, final = 100_000, 0.3

    def at(t: float) -> float:
        progress = min(1.0, max(0.0, (t - 0.25) / 0.5))
        return {
            "geometric": final**progress,
            "linear": 1 - (1 - final) * progress,
            "cubic": final + (1 - final) * (1 - progress) ** 3,
        }[decay]

    mean = sum(at((i + 0.5) / steps) for i in range(steps)) / steps
    assert average_density(final, decay=decay) == pytest.approx(mean, abs=1e-6)  # type: ignore[arg-type]


def test_nothing_is_pruned_at_density_one() -> None:
    assert average_density(1.0) == 1


@pytest.mark.parametrize(
    "density, begin, end", [(0, 0.25, 0.75), (1.1, 0.25, 0.75), (0.5, 0.8, 0.2), (0.5, 0, 2)]
)
def test_a_schedule_that_is_none_is_refused(density: float, begin: float, end: float) -> None:
    with pytest.raises(InputError, match=r"density|pruning"):
        average_density(density, begin, end)


def test_activation_ratio_of_the_2_4b_model_of_arxiv_2411_02335() -> None:
    found = ACTIVATION["relu-2.4b"].loss(data=800e9)
    assert found == pytest.approx(0.0652, abs=5e-5)
    assert 1 - found == pytest.approx(0.9352, abs=5e-4), "the abstract: 93.52 % sparse"


TABLE_2 = {
    "relu-0.1b": (0.101, -0.0151, 3.20, 0.0614),
    "relu-0.2b": (0.449, -3.05, 0.286, 0.0674),
    "relu-0.4b": (0.683, -3.46, 0.0790, 0.0690),
    "relu-0.8b": (1.01, -3.49, 0.00797, 0.0721),
    "relu-1.2b": (1.33, -3.89, 9.03e-4, 0.0782),
    "relu-2.4b": (1.53, -3.46, 1.56e-4, 0.0648),
    "silu-0.1b": (0.479, 0.102, 0.409),
    "silu-0.2b": (0.844, 0.208, 0.390),
    "silu-0.4b": (1.03, 0.420, 0.385),
    "silu-0.8b": (0.995, 0.562, 0.383),
    "silu-1.2b": (0.967, 0.538, 0.382),
}


@pytest.mark.parametrize("fit", TABLE_2)
def test_activation_ratios_of_table_2(fit: str) -> None:
    *k, limit = TABLE_2[fit]
    relu = fit.startswith("relu")
    by_hand = exp(-k[2] * 50 ** k[0] + k[1]) + limit if relu else -k[1] / 50 ** k[0] + limit
    law = ACTIVATION[fit]
    assert law.loss(data=50e9) == pytest.approx(by_hand)
    assert law.loss(data=1e30) == pytest.approx(limit, abs=1e-3)
    assert set(ACTIVATION) == set(TABLE_2)


# --- arXiv 2309.08520 ------------------------------------------------------------------------------------


def test_the_held_out_t5_run_is_predicted_within_two_per_cent() -> None:
    """The largest of the authors' runs: 604 million non-zero weights, 500 000 steps of 65 536 tokens."""
    found = LAWS["t5-c4"].loss(0.75, 48 * 12 * 1024**2, 500_000 * 65_536)
    assert found == pytest.approx(1.48278, rel=0.02)


@pytest.mark.parametrize("name", LAWS)
def test_both_forms_of_the_sparse_law_agree(name: str) -> None:
    law, other = LAWS[name], published("sparse", name)
    assert other.loss(sparsity=0.6, params=3e7, data=1e10) == pytest.approx(law.loss(0.6, 3e7, 1e10))


# --- all laws --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("law", EVERY)
def test_a_law_says_what_it_is(law: Law) -> None:
    assert law.equation.split(" = ")[0] in ("L", "log L", "A")
    assert "arXiv" in law.source
    assert all(variable.symbol in law.equation or variable.symbol == "N" for variable in law.variables)
    assert set(law.amplitudes) <= set(law.constants)
    assert all(law.constants[name] > 0 for name in law.amplitudes)


@pytest.mark.parametrize("law", EVERY)
def test_a_law_refuses_what_makes_no_sense(law: Law) -> None:
    typical = {"sparsity": 0.5, "params": 1e9, "data": 1e11}
    sound = {v.name: typical.get(v.name, 8.0) for v in law.variables}
    assert law.loss(**sound) > 0
    for variable in law.variables:
        for value in (-1.0, float("nan"), float("inf")):
            with pytest.raises(InputError, match=variable.name):
                law.loss(**{**sound, variable.name: value})
        with pytest.raises(InputError, match="depends on"):
            law.loss(**{name: value for name, value in sound.items() if name != variable.name})
    with pytest.raises(InputError, match="does not depend on depth"):
        law.loss(**sound, depth=3)


def test_extrapolation_is_said_and_so_is_that_it_is_not_known() -> None:
    inside = {"params": 1e9, "data": 1e10, "experts": 8.0}
    assert not any("extrapolated" in note for note in JOINT_MOE.notes(**inside))
    far = JOINT_MOE.notes(**{**inside, "params": 1e10, "experts": 64})
    assert any("up to 2.7 G, so 10 G active parameters is extrapolated" in note for note in far)
    assert any("from 1 to 32, so 64 experts is extrapolated" in note for note in far)
    assert any("range of D" in note and "not known" in note for note in far)
    assert not any("not known" in note for note in DENSE.notes(params=1e9, data=1e10))
    assert any("from 70 M to 16 G" in note for note in DENSE.notes(params=1e7, data=1e10))
    assert any("D from 16.38 G to 65.54 G" in note for note in LAWS["t5-c4"].notes(0.5, 2e6, 1e12))


def test_a_ratio_below_zero_is_no_answer() -> None:
    with pytest.raises(InputError, match=r"gives the activation ratio -0\.035 at data 1e\+09"):
        ACTIVATION["silu-0.4b"].loss(data=1e9)


def test_unknown_laws_and_fits_are_named() -> None:
    with pytest.raises(InputError, match="sparse, dense, average, joint-moe"):
        published("kaplan")
    with pytest.raises(InputError, match="s-base, rl-r, hash"):
        published("routed", "topk")


def test_the_least_loss_is_found_and_a_hopeless_budget_refused() -> None:
    found = optimum(lambda n, d: DENSE.loss(params=n, data=d), 1e21)
    for times in (0.9, 0.99, 1.01, 1.1):
        assert DENSE.loss(params=found.params * times, data=found.data / times) > found.loss
    closed = (0.34 * 406.4 / (0.28 * 410.7)) ** (1 / 0.62) * (1e21 / 6) ** (0.28 / 0.62)
    assert found.params == pytest.approx(closed, rel=1e-5)
    with pytest.raises(InfeasibleError, match="give at least"):
        optimum(lambda n, d: DENSE.loss(params=n, data=d), 1e9, served=1e12)
    with pytest.raises(InfeasibleError, match="no model fits"):
        ExpertShape().largest(10, 8, 0)
