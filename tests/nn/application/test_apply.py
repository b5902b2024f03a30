"""Applied plans: the structure, the masks and the costs of the plan, in a network that runs and learns."""

from __future__ import annotations

import copy
import io
import os
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import prune

import iftplan as ift
from iftplan.base.errors import InputError, MeasureError, StaleError
from iftplan.nn import apply, apply_, enforce_, masked_weights, measure_applied
from iftplan.nn.layers.branches import Doped, Factorized, Parallel
from iftplan.nn.meta.copies import on_meta
from iftplan.plans.audit.audit import Verdict
from tests.support.models.applied import FAMILIES, HOSTS, answer, host, masks_of, planned
from tests.support.sampling import sampled

ENGINES = ("meta", "fvcore", "flop_counter")
QUICK = ("convolutions", "GPT-2")  # a share of the other hosts goes with the minutes-long tests
CASES = [
    *product(QUICK, FAMILIES),
    *(
        pytest.param(*case, marks=pytest.mark.slow)
        for case in sampled([name for name in HOSTS if name not in QUICK], FAMILIES, of=4)
    ),
]


@pytest.mark.parametrize(("name", "family"), CASES)
def test_an_applied_model_is_what_was_planned(name: str, family: str) -> None:
    plan, dense = planned(name, family), host(name)
    before = {key: value.clone() for key, value in dense.state_dict().items()}
    model = apply(plan, dense)
    report = measure_applied(plan, model, engines=ENGINES)
    assert report.verdict is Verdict.PASSED, report.problems
    assert len(set(report.counters.values())) == 1
    assert all(layer.agrees and layer.measured_macs is not None for layer in report.layers)
    assert report.measured_macs == plan.macs(plan.scope)
    assert sum(m.numel() for m in masks_of(model).values()) == plan.cardinality.maskable_weights
    assert all(torch.equal(before[key], value) for key, value in dense.state_dict().items())


@pytest.mark.parametrize(("name", "family"), CASES)
def test_an_applied_model_learns(name: str, family: str) -> None:
    model = apply(planned(name, family), host(name)).train()
    masked = list(masked_weights(model))
    expected = answer(host(name), name).shape
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
    for _ in range(2):
        optimizer.zero_grad()
        output = answer(model, name)
        assert output.shape == expected
        output.square().mean().backward()
        optimizer.step()
        enforce_(model)
    for weight in masked:
        gradient = weight.parameter.grad
        assert gradient is not None
        assert gradient.isfinite().all()
        assert (weight.parameter[~weight.mask] == 0).all()
        assert (weight.parameter[weight.mask] != 0).all()
    grown = [w.parameter.grad[~w.mask].abs().sum() for w in masked]
    assert family == "lowrank" or sum(grown) > 0, "sparse trainers need the gradient off the mask"


@pytest.mark.parametrize(("name", "family"), CASES)
def test_what_stays_on_the_meta_device_costs_the_same(name: str, family: str) -> None:
    plan = planned(name, family)
    model = apply(plan, on_meta(host(name)))
    assert {t.device.type for t in [*model.parameters(), *masks_of(model).values()]} == {"meta"}
    report = measure_applied(plan, model, engines=ENGINES)
    assert report.passed, report.problems
    labelled = any("planned, not measured" in sentence for sentence in report.assumptions)
    assert labelled is bool(masks_of(model))


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.integers(2, 24), min_size=4, max_size=6),
    st.sampled_from(FAMILIES[:4]),
    st.fractions(Fraction(1, 4), Fraction(3, 4), max_denominator=16),
    st.integers(0, 99),
)
def test_counts_are_exact_for_any_plan(widths: list[int], family: str, sparsity: Fraction, seed: int) -> None:
    layers = [part for a, b in pairwise(widths) for part in (nn.Conv2d(a, b, 3, padding=1), nn.ReLU())]
    model = nn.Sequential(*layers)
    try:
        plan = ift.plan(ift.read_model(model, f"2x{widths[0]}x5x5"), family, sparsity)
    except ift.InfeasibleError:
        return
    applied = apply(plan, model, seed=seed)
    found = masks_of(applied)
    for layer in plan.layers:
        inside = [m for n, m in found.items() if n.startswith(f"{layer.name}.")]
        assert sum(int(m.sum()) for m in inside) == (layer.nnz if layer.maskable else 0)
    assert measure_applied(plan, applied).passed


# --- what it costs is not what is inside -----------------------------------------------------------------


@pytest.mark.parametrize("family", ["parallel", "factorized", "doped"])
@pytest.mark.parametrize("name", ["convolutions", "GPT-2", "Llama, grouped queries"])
def test_non_linearities_inside_the_members_suit_the_host_and_cost_no_macs(name: str, family: str) -> None:
    plan = planned(name, family)
    bent, straight = apply(plan, host(name)), apply(plan, host(name), nonlinear=False)
    kinds = {type(m) for m in bent.modules()} - {type(m) for m in straight.modules()}
    inside = [m for m in bent.modules() if isinstance(m, nn.Sequential) and len(m) == 2]
    norm = {"convolutions": nn.BatchNorm2d, "GPT-2": nn.LayerNorm, "Llama, grouped queries": nn.RMSNorm}[name]
    activation = {"convolutions": "ReLU", "GPT-2": "NewGELUActivation", "Llama, grouped queries": "SiLU"}[
        name
    ]
    convolutional = [m for m in inside if type(m[0]) is norm and type(m[1]).__name__.startswith(activation)]
    assert convolutional, (kinds, inside[:2])
    counts = [measure_applied(plan, m, engines=ENGINES).counters for m in (bent, straight)]
    assert counts[0] == counts[1]


def test_members_stand_where_the_plan_transforms_and_nowhere_else() -> None:
    for family, kind in (("parallel", Parallel), ("factorized", Factorized), ("doped", Doped)):
        plan = planned("convolutions", family)
        model = apply(plan, host("convolutions"))
        placed = {name for name, module in model.named_modules() if isinstance(module, kind)}
        assert placed == {layer.name for layer in plan.layers if layer.role.value == "transformed"}
        assert placed == {"body.2", "body.5", "body.9"}


def test_published_code_masks_u_and_v_of_the_doped_member_and_spends_too_little() -> None:
    # The low-rank pair is dense: masked too, the model would spend a part of its budget only.
    plan = planned("convolutions", "doped", "3/4")
    model = apply(plan, host("convolutions"))
    members = {name: m for name, m in model.named_modules() if isinstance(m, Doped)}
    assert set(masks_of(model)) == {f"{name}.sparse.weight" for name in members}
    assert all((m.U.weight != 0).all() and (m.V.weight != 0).all() for m in members.values())
    for name, member in members.items():
        for part in (member.U, member.V):
            part.register_buffer(
                "weight_mask", torch.zeros_like(part.get_parameter("weight"), dtype=torch.bool)
            )
        assert not measure_applied(plan, model).passed, name


def test_published_code_chooses_layers_by_their_names_and_sizes_and_this_does_not() -> None:
    # Named like what is usually kept dense, and as wide as the number of classes: what counts is the place.
    class Misnamed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(6, 10)
            self.fc_classifier, self.conv1 = nn.Linear(10, 10), nn.Linear(10, 10)
            self.downsample_bn = nn.Linear(10, 10)

        def forward(self, x: Tensor) -> Tensor:
            x = self.fc_classifier(self.head(x).relu()).relu()
            return self.downsample_bn(self.conv1(x).relu())

    plan = ift.plan(ift.read_model(Misnamed(), "3x6", widths=False), "parallel", "1/2")
    model = apply(plan, Misnamed())
    assert {n for n, m in model.named_modules() if isinstance(m, Parallel)} == {"fc_classifier", "conv1"}
    assert measure_applied(plan, model).passed


# --- seeds, initial weights ------------------------------------------------------------------------------


@pytest.mark.parametrize("init", ["kaiming", "density", None])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_seed_gives_one_model_and_leaves_the_global_stream_alone(family: str, init: str | None) -> None:
    plan, dense = planned("convolutions", family), host("convolutions")
    torch.manual_seed(5)
    untouched = torch.rand(1)
    torch.manual_seed(5)
    first = apply(plan, dense, seed=1, init=init).state_dict()
    assert torch.rand(1) == untouched
    again, other = (apply(plan, dense, seed=seed, init=init).state_dict() for seed in (1, 2))
    assert all(torch.equal(value, again[key]) for key, value in first.items())
    assert any(not torch.equal(value, other[key]) for key, value in first.items())


@pytest.mark.parametrize(("init", "gain"), [("kaiming", 1.0), ("density", 4.0)])
def test_new_weights_have_the_variance_of_their_scheme(init: str, gain: float) -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 64, 3), nn.Conv2d(64, 64, 3), nn.ReLU(), nn.Conv2d(64, 64, 3), nn.Conv2d(64, 5, 1)
    )
    plan = ift.plan(ift.read_model(model, "1x3x9x9", widths=False), "parallel", "3/4")
    member = apply(plan, model, init=init).get_submodule("1")
    branch = member.branches[2]
    kept = branch.weight[branch.weight_mask]
    # variance 2/(64·9), for the weights that are kept; `density` divides by what the masks keep, a quarter
    assert kept.var().item() == pytest.approx(gain * 2 / 576, rel=0.05)
    assert member.own_bias() is not None
    assert (member.own_bias() == 0).all()


class Bare(nn.Module):
    """A matrix under a name of its own, without a module for it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 32), nn.Linear(32, 4)
        self.proj = nn.Parameter(torch.randn(32, 32))

    def forward(self, x: Tensor) -> Tensor:
        return self.last((self.first(x).relu() @ self.proj).relu())


@pytest.mark.parametrize("make", [Bare, lambda: nn.Sequential(Bare())], ids=["model", "part"])
def test_a_matrix_without_a_module_is_drawn_like_any(make: Callable[..., Any]) -> None:
    model = make()
    plan = ift.plan(ift.read_model(model, "2x6"), "wide", "3/4", scope="matrices")
    applied = apply(plan, model)
    (weight,) = masked_weights(applied)
    assert weight.parameter_name == "proj"
    kept = weight.parameter[weight.mask]
    assert kept.std().item() == pytest.approx((2 / 64) ** 0.5, rel=0.2)
    first = dict(applied.named_parameters())[weight.name.replace("proj", "first.bias")]
    assert (first == 0).all()


def test_weights_whose_shape_stays_are_kept() -> None:
    dense, plan = host("convolutions"), planned("convolutions", "parallel")
    model = apply(plan, dense)
    kept = {"stem.weight", "stem.bias", "head.weight", "body.7.weight"}
    state, before = model.state_dict(), dense.state_dict()
    assert all(torch.equal(state[name], before[name]) for name in kept)
    masked = apply(planned("convolutions", None), dense)
    for weight in masked_weights(masked):
        assert torch.equal(weight.parameter, before[weight.name] * weight.mask)


def test_a_resized_embedding_is_no_layer_to_initialise_even_where_the_head_is_tied_to_it() -> None:
    table = apply(planned("GPT-2", "wide"), host("GPT-2")).transformer.wte.weight
    assert table.shape[1] > host("GPT-2").transformer.wte.weight.shape[1]
    assert table.std().item() == pytest.approx(0.02, rel=0.2)


@pytest.mark.parametrize("family", ["parallel", "factorized", "doped"])
def test_the_bias_of_a_layer_is_added_once(family: str) -> None:
    model = apply(planned("convolutions", family), host("convolutions"), nonlinear=False)
    member = model.get_submodule("body.5")
    with torch.no_grad():
        for name, parameter in member.named_parameters():
            parameter.fill_(1.0 if name.endswith("bias") else 0.0)
    assert (member(torch.randn(1, 32, 4, 4)) == 1).all()
    assert member.own_bias() is not None


# --- ties and shared modules -----------------------------------------------------------------------------


class Tied(nn.Module):
    """Two layers over one weight, and one module called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(8, 16), nn.Linear(16, 3)
        self.a, self.b = nn.Linear(16, 16), nn.Linear(16, 16)
        self.b.weight = self.a.weight
        self.twice = nn.Linear(16, 16)
        self.alias = self.twice

    def forward(self, x: Tensor) -> Tensor:
        x = self.b(self.a(self.first(x)).relu()).relu()
        return self.last(self.alias(self.twice(x).relu()).relu())


@pytest.mark.parametrize("family", [*FAMILIES, None])
def test_tied_weights_and_shared_modules_are_handled_once(family: str | None) -> None:
    torch.manual_seed(0)
    model = Tied()
    spec = ift.read_model(model, "4x8")
    plan = ift.plan(spec, family, "1/2")
    applied = apply(plan, model)
    report = measure_applied(plan, applied, engines=ENGINES)
    assert report.passed, report.problems
    assert len(set(report.counters.values())) == 1
    assert applied.twice is applied.alias
    shared = dict(applied.a.named_parameters())
    assert all(p is shared[n] for n, p in applied.b.named_parameters() if p.dim() > 1)
    assert applied.a is not applied.b
    names = {name.split(".")[0] for name in masks_of(applied)}
    assert family == "lowrank" or names == {"a", "twice"}


# --- what is refused -------------------------------------------------------------------------------------


def test_another_model_is_stale_and_nothing_was_changed() -> None:
    model = nn.Sequential(nn.Linear(12, 40), nn.GELU(), nn.Linear(40, 5))
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(StaleError, match="not the model that the plan was made for"):
        apply_(planned("perceptron", "parallel"), model)
    assert model.state_dict().keys() == before.keys()


@pytest.mark.parametrize(
    ("family", "mask", "said"),
    [
        ("wide", "2:8", "divisible"),
        ("wide", "block4x4", "cannot be divided into"),
        ("parallel", "2:8", "keep"),
        ("parallel", "block5x5", "cannot be divided into"),
        (None, "block32x32", "cannot be divided into"),
        (None, "2:4T", "divisible"),
    ],
)
def test_a_mask_that_does_not_fit_leaves_the_model_as_it_was(
    family: str | None, mask: str, said: str
) -> None:
    plan, model = replace(planned("convolutions", family), mask=mask), host("convolutions")
    modules, before = list(model.named_modules()), copy.deepcopy(model.state_dict())
    parameters = [id(p) for p in model.parameters()]
    with pytest.raises(InputError, match=said):
        apply_(plan, model)
    assert list(model.named_modules()) == modules
    assert [id(p) for p in model.parameters()] == parameters
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with pytest.raises(InputError, match=said):
        apply_(plan, model.to("meta"))
    assert not list(masked_weights(model))


def test_a_masked_model_is_masked_once() -> None:
    plan = planned("perceptron", None)
    model = apply(plan, host("perceptron"))
    with pytest.raises(InputError, match="masked already"):
        apply(plan, model)


def test_an_unknown_initialisation_and_a_taken_name_are_refused() -> None:
    plan, model = planned("perceptron", None), host("perceptron")
    with pytest.raises(InputError, match="kaiming"):
        apply(plan, model, init="xavier")
    model[2].register_buffer("weight_mask", torch.zeros(1))
    with pytest.raises(InputError, match="'weight_mask' already"):
        apply(plan, model)


def test_a_family_of_ones_own_is_refused_by_name() -> None:
    import dataclasses

    plan = dataclasses.replace(planned("perceptron", None), transform="shared")
    with pytest.raises(MeasureError, match="'shared'"):
        apply(plan, host("perceptron"))


def test_a_pruned_model_is_refused_by_name() -> None:
    model = host("perceptron")
    prune.l1_unstructured(model[2], "weight", 0.5)
    plan = ift.plan(ift.read_model(model, "4x12", widths=False), None, "1/2")
    with pytest.raises(InputError, match="make the pruning permanent"):
        apply(plan, model)


# --- what a module has to be able to do ------------------------------------------------------------------


def unpickled(model: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    loaded: nn.Module = torch.load(file, weights_only=False)  # pickles whole modules; we wrote them just now
    return loaded


PLACES = [("convolutions", f) for f in FAMILIES] + [("GPT-2", "wide"), ("GPT-2", "parallel")]


def same(first: nn.Module, second: nn.Module, name: str) -> bool:
    masks, others = masks_of(first), masks_of(second)
    equal = masks.keys() == others.keys() and all(torch.equal(m, others[n]) for n, m in masks.items())
    return equal and torch.equal(answer(first.eval(), name), answer(second.eval(), name))


@pytest.mark.parametrize(("name", "family"), PLACES)
def test_a_state_dict_carries_weights_and_masks(name: str, family: str) -> None:
    # A resumed run has the masks that were saved, not those of the constructor's seed.
    plan = planned(name, family)
    saved, resumed = apply(plan, host(name), seed=1), apply(plan, host(name), seed=2)
    assert not same(saved, resumed, name)
    file = io.BytesIO()
    torch.save(saved.state_dict(), file)
    file.seek(0)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    assert same(saved, resumed, name)
    enforce_(resumed)
    assert same(saved, resumed, name)
    assert measure_applied(plan, resumed).passed


@pytest.mark.parametrize(("name", "family"), PLACES)
def test_copies_and_pickles_are_the_same_model(name: str, family: str) -> None:
    model = apply(planned(name, family), host(name))
    for other in (copy.deepcopy(model), unpickled(model)):
        assert same(model, other, name)
        assert not {id(p) for p in model.parameters()} & {id(p) for p in other.parameters()}
        for weight in masked_weights(other):
            weight.mask.fill_(False)
        enforce_(other)
        assert not masks_of(other) or not same(model, other, name)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("family", FAMILIES)
def test_other_precisions(family: str, dtype: torch.dtype) -> None:
    plan = planned("convolutions", family)
    model = apply(plan, host("convolutions")).to(dtype)
    x = torch.randn(2, 3, 8, 8, dtype=dtype)
    assert model(x).dtype is dtype
    assert {m.dtype for m in masks_of(model).values()} <= {torch.bool}
    assert all((w.parameter[~w.mask] == 0).all() for w in masked_weights(model))
    born = apply(plan, host("convolutions").to(dtype))  # and a plan is applied to a model that has it already
    assert {p.dtype for p in born.parameters()} == {dtype}
    assert measure_applied(plan, born).passed
    assert born(x).isfinite().all()


@pytest.mark.parametrize("family", FAMILIES)
def test_masks_move_with_their_weights(family: str) -> None:
    model = apply(planned("convolutions", family), host("convolutions")).to("meta")
    assert {t.device.type for t in [*model.parameters(), *model.buffers()]} == {"meta"}


@pytest.mark.parametrize("family", FAMILIES)
def test_data_parallel(family: str) -> None:
    model = apply(planned("convolutions", family), host("convolutions"))
    x = torch.randn(4, 3, 8, 8)
    assert torch.equal(nn.DataParallel(model)(x), model(x))


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this build of torch has no distributed")
@pytest.mark.parametrize("family", FAMILIES)
def test_distributed_data_parallel(family: str, tmp_path: Path) -> None:
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1
    )
    try:
        model = apply(planned("convolutions", family), host("convolutions")).train()
        masks = {name: mask.clone() for name, mask in masks_of(model).items()}
        nn.parallel.DistributedDataParallel(model)(torch.randn(4, 3, 8, 8)).square().mean().backward()
        assert all(p.grad is not None for p in model.parameters())
        assert all(torch.equal(mask, masks[name]) for name, mask in masks_of(model).items())
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize(("name", "family"), PLACES)
def test_compiled_it_answers_the_same(name: str, family: str) -> None:
    model = apply(planned(name, family), host(name)).eval()
    torch.compiler.reset()  # models of other cases share this one's code
    compiled: Any = torch.compile(model, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(answer(compiled, name), answer(model, name))
    model.train()
    answer(compiled, name).square().mean().backward()
    assert all(w.parameter.grad is not None for w in masked_weights(model))


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_compiled_by_inductor_it_answers_the_same(family: str) -> None:
    model = apply(planned("convolutions", family), host("convolutions")).eval()
    torch.compiler.reset()
    compiled: Any = torch.compile(model, fullgraph=True)
    try:
        output = answer(compiled, "convolutions")
    except Exception as error:
        if "compiler" in str(error).lower() and "not found" in str(error).lower():
            pytest.skip("inductor needs a C++ compiler, and none is installed")
        raise
    torch.testing.assert_close(output, answer(model, "convolutions"), atol=1e-5, rtol=1e-4)


# --- audits that must fail -------------------------------------------------------------------------------


def test_a_mask_that_keeps_one_weight_more_fails_the_audit() -> None:
    plan = planned("convolutions", "wide")
    model = apply(plan, host("convolutions"))
    weight = next(iter(masked_weights(model)))
    weight.mask.view(-1)[(~weight.mask).view(-1).nonzero()[0]] = True
    report = measure_applied(plan, model)
    assert report.verdict is Verdict.FAILED
    assert weight.name.removesuffix(".weight") in report.problems[0]


def test_weights_off_their_mask_fail_the_audit() -> None:
    plan = planned("convolutions", "parallel")
    model = apply(plan, host("convolutions"))
    weight = next(iter(masked_weights(model)))
    with torch.no_grad():
        weight.parameter.fill_(1)
    report = measure_applied(plan, model)
    assert any("not zero off its mask" in problem for problem in report.problems)


def test_a_model_without_masks_is_no_applied_one() -> None:
    with pytest.raises(InputError, match="no masks"):
        measure_applied(planned("perceptron", "wide"), host("perceptron"))


def test_a_lazy_network_is_refused_in_words() -> None:
    network = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.LazyLinear(4))
    plan = ift.plan(network, "parallel", "1/2", inputs="2x8")
    with pytest.raises(ift.InputError, match=r"2.weight of Sequential is lazy and has no shape before"):
        ift.nn.apply(plan, network)
