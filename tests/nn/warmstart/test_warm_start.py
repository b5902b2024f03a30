"""Warm starts: where the algebra is exact the applied model is the dense one, and elsewhere the error is what it says."""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt
from statistics import mean
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

import iftplan as ift
from iftplan.base.errors import InputError, StaleError
from iftplan.nn import apply, densify, masked_weights
from iftplan.nn.layers.stacks import Stack, note_stack_
from iftplan.nn.warmstart.layers import start_plain_
from iftplan.nn.warmstart.warm_start import WarmStart, warm_start_
from iftplan.plans.plan import Plan
from tests.support.models.applied import host, perceptron, planned

EXACT = 1e-5  # single precision through a few layers


class Residual(nn.Module):
    """A small residual network: a shortcut, a projection, squeeze-excite and a depthwise convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, padding=1)
        self.norm = nn.BatchNorm2d(12)
        self.one = nn.Conv2d(12, 12, 3, padding=1, bias=False)
        self.depth = nn.Conv2d(12, 12, 3, padding=1, groups=12)
        self.squeeze, self.excite = nn.Linear(12, 6), nn.Linear(6, 12)
        self.two = nn.Conv2d(12, 20, 3, 2, 1)
        self.short = nn.Conv2d(12, 20, 1, 2)
        self.last = nn.BatchNorm2d(20)
        self.head = nn.Linear(20, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x)).relu()
        x = x + self.depth(self.one(x).relu())
        gate = self.excite(self.squeeze(x.mean((2, 3))).relu()).sigmoid()
        x = x * gate[:, :, None, None]
        x = self.last(self.two(x) + self.short(x)).relu()
        return self.head(x.mean((2, 3)))


class Decoder(nn.Module):
    """Transposed convolutions, plain and depthwise."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, padding=1)
        self.up = nn.ConvTranspose2d(12, 10, 2, 2)
        self.deep = nn.ConvTranspose2d(10, 10, 3, 2, groups=10)
        self.head = nn.Conv2d(10, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.deep(self.up(self.stem(x).relu()).relu()).relu())


def trained(make: Callable[[], nn.Module], shape: tuple[int, ...]) -> nn.Module:
    """Values of a network in use: statistics that are not 0 and 1, norms that are not the identity."""
    torch.manual_seed(0)
    model = make()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.3)
        for _ in range(3):
            model(torch.randn(shape))
    return model.eval()


def plan_of(model: nn.Module, family: str | None, sparsity: str, shape: str, **options: Any) -> Plan:
    return ift.plan(ift.read_model(model, shape), family, sparsity, scope="matrices", **options)


NETWORKS = [
    pytest.param(perceptron, (4, 12), id="perceptron"),
    pytest.param(Residual, (4, 3, 8, 8), id="residual"),
    pytest.param(Decoder, (2, 3, 4, 4), id="decoder"),
]


def start(
    make: Callable[[], nn.Module],
    shape: tuple[int, ...],
    family: str | None,
    sparsity: str,
    *,
    masks: Literal["keep", "draw"] = "keep",
    seed: int = 0,
    dense: bool = False,
) -> tuple[nn.Module, nn.Module, WarmStart]:
    model = trained(make, shape)
    plan = plan_of(model, family, sparsity, "x".join(map(str, shape)))
    applied = apply(plan, model, nonlinear=False, seed=seed)
    applied = densify(applied) if dense else applied
    return applied.eval(), model, warm_start_(applied, model, plan, masks=masks, seed=seed)


# --- where it is exact ----------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["wide", "parallel", "doped", None])
@pytest.mark.parametrize(("make", "shape"), NETWORKS)
def test_at_sparsity_zero_it_is_the_dense_model(
    make: Callable[..., Any], shape: tuple[int, ...], family: str | None
) -> None:
    applied, model, report = start(make, shape, family, "0")
    x = torch.randn(shape)
    assert report.output == 0
    assert set(report.layers.values()) == {0.0}
    assert torch.equal(applied(x), model(x))


@pytest.mark.parametrize("sparsity", ["1/2", "3/4", "0.9"])
@pytest.mark.parametrize(("make", "shape"), NETWORKS)
def test_wide_without_masks_computes_what_the_dense_model_does(
    make: Callable[..., Any], shape: tuple[int, ...], sparsity: str
) -> None:
    applied, model, report = start(make, shape, "wide", sparsity, dense=True)
    x = torch.randn(shape)
    assert sum(p.numel() for p in applied.parameters()) > sum(p.numel() for p in model.parameters())
    assert torch.allclose(applied(x), model(x), rtol=1e-4, atol=1e-5)
    assert report.output < EXACT
    assert set(report.layers.values()) == {0.0}


@pytest.mark.parametrize("sparsity", ["1/2", "3/4", "0.9"])
@pytest.mark.parametrize(("make", "shape"), NETWORKS)
def test_branches_that_share_the_weights_out_sum_to_the_dense_model(
    make: Callable[..., Any], shape: tuple[int, ...], sparsity: str
) -> None:
    applied, model, report = start(make, shape, "parallel", sparsity, masks="draw")
    x = torch.randn(shape)
    members: list[Any] = [m for m in applied.modules() if hasattr(m, "branches")]
    assert any(len(m.branches) > 1 for m in members)
    assert torch.allclose(applied(x), model(x), rtol=1e-4, atol=1e-5)
    assert report.output < EXACT


@pytest.mark.parametrize("masks", ["keep", "draw"])
@pytest.mark.parametrize("family", ["wide", "parallel", "factorized", "doped", None])
@pytest.mark.parametrize(("make", "shape"), NETWORKS)
def test_counts_of_masks_and_zeros_off_them_stay(
    make: Callable[..., Any], shape: tuple[int, ...], family: str | None, masks: Any
) -> None:
    model = trained(make, shape)
    plan = plan_of(model, family, "1/2", "x".join(map(str, shape)))
    applied = apply(plan, model, nonlinear=False)
    before = {w.name: int(w.mask.sum()) for w in masked_weights(applied)}
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    warm_start_(applied, model, plan, masks=masks)
    assert {w.name: int(w.mask.sum()) for w in masked_weights(applied)} == before
    assert all((w.parameter[~w.mask] == 0).all() for w in masked_weights(applied))
    assert all(torch.equal(kept[name], value) for name, value in model.state_dict().items())


class LowRank(nn.Module):
    """Layers whose weights are of rank 2, in as many forms as there are members of."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.body = nn.ModuleList(
            [
                nn.Conv2d(8, 8, 3, padding=1),
                nn.Conv2d(8, 8, 3, padding=1, groups=2),
                nn.Conv2d(8, 8, 1),
                nn.ConvTranspose2d(8, 8, 2, stride=2),
            ]
        )
        self.mid, self.head = nn.Linear(8, 24), nn.Linear(24, 3)
        with torch.no_grad():
            for layer in (*self.body, self.mid):
                groups = getattr(layer, "groups", 1)
                for block in layer.weight.chunk(groups):
                    flat = block.flatten(1)
                    flat.copy_(torch.randn(len(flat), 2) @ torch.randn(2, flat.shape[1]) / 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for layer in self.body:
            x = layer(x).relu()
        return self.head(self.mid(x.mean((2, 3))).relu())


def unmasked_start(family: str) -> tuple[nn.Module, nn.Module, WarmStart]:
    torch.manual_seed(0)
    model = LowRank().eval()
    plan = plan_of(model, family, "1/2", "2x3x8x8")
    applied = densify(apply(plan, model, nonlinear=False)).eval()
    return applied, model, warm_start_(applied, model, plan)


@pytest.mark.parametrize("family", ["factorized", "doped"])
def test_factors_of_full_rank_are_the_dense_model(family: str) -> None:
    """Linear, 3×3, grouped, 1×1 and transposed: the rank is at least that of the weight, and no mask covers U and V."""
    applied, model, report = unmasked_start(family)
    x = torch.randn(2, 3, 8, 8)
    replaced = [name for name, m in applied.named_modules() if hasattr(m, "U")]
    assert {"body.0", "body.1", "body.2", "body.3", "mid"} <= set(replaced)
    assert max(report.layers[name] for name in replaced) < EXACT
    assert torch.allclose(applied(x), model(x), rtol=1e-4, atol=1e-5)


def test_doped_at_full_rank_needs_no_sparse_part() -> None:
    """Under its mask too: the dense pair is all of W."""
    torch.manual_seed(0)
    model = LowRank().eval()
    plan = plan_of(model, "doped", "1/2", "2x3x8x8")
    applied = apply(plan, model, nonlinear=False)
    report = warm_start_(applied, model, plan)
    # the grouped one has a rank of 1 for each of its groups, and is of rank 2
    assert (
        max(report.layers[name] for name in ("body.0", "body.2", "body.3", "mid"))
        < EXACT
        < report.layers["body.1"]
    )
    assert applied.mid.sparse.weight.abs().max() < 1e-5
    assert (~applied.mid.sparse.weight_mask).any()


def test_transformers_linear_layers_start_in_parallel() -> None:
    plan, model = planned("GPT-2", "parallel"), host("GPT-2")
    applied = apply(plan, model, nonlinear=False)
    assert warm_start_(applied, model, plan, masks="draw").output < EXACT


# --- where it is not ------------------------------------------------------------------------------------


def test_independent_branches_are_the_dense_weight_on_average() -> None:
    torch.manual_seed(0)
    model = perceptron()
    plan = plan_of(model, "parallel", "3/4", "4x12")
    seeds, sums, errors = 200, [], []
    for seed in range(seeds):
        applied = apply(plan, model, nonlinear=False, seed=seed)
        errors.append(warm_start_(applied, model, plan).layers["2"])
        branches: Any = applied.get_submodule("2.branches")
        sums.append(sum(branch.weight for branch in branches).detach())
    weight, average = model[2].weight, torch.stack(sums).mean(0)
    # four masks of density 1/4: each weight is W times a mean of Bernoulli/density, variance (1/ρ - 1)/4
    deviation = sqrt((4 - 1) / 4)
    assert mean(errors) == pytest.approx(deviation, rel=0.05)
    off = ((average - weight) / weight / (deviation / sqrt(seeds))).flatten()
    assert off.square().mean().item() == pytest.approx(1, rel=4 * sqrt(2 / off.numel()))
    assert abs(off.mean().item()) < 4 / sqrt(off.numel())


def test_kept_weights_alone_are_scaled_to_the_same_sum_on_average() -> None:
    torch.manual_seed(0)
    model = perceptron()
    plan = plan_of(model, None, "3/4", "4x12")
    applied = apply(plan, model, nonlinear=False)
    report = warm_start_(applied, model, plan)
    mask = applied[2].weight_mask
    assert torch.allclose(applied[2].weight[mask], 4 * model[2].weight[mask])
    # ‖W⊙(M/ρ - 1)‖² is (1/ρ - 1)·‖W‖² on average
    assert report.layers["2"] == pytest.approx(sqrt(3), rel=0.1)


@pytest.mark.parametrize("family", [None, "factorized", "doped"])
def test_masks_drawn_for_the_start_are_nearer(family: str | None) -> None:
    reports = {}
    for masks in ("keep", "draw"):
        *_, reports[masks] = start(Residual, (4, 3, 8, 8), family, "1/2", masks=masks)
    changed = [n for n, error in reports["keep"].layers.items() if error]
    assert len(changed) > 2
    assert all(reports["draw"].layers[name] < reports["keep"].layers[name] for name in changed)


@pytest.mark.parametrize("family", ["factorized", "doped", "lowrank"])
def test_a_low_rank_start_is_never_worse_than_no_weights(family: str) -> None:
    *_, report = start(Residual, (4, 3, 8, 8), family, "3/4")
    assert all(0 <= error <= 1 for error in report.layers.values())
    assert max(report.layers.values()) > 0.1


def test_the_output_error_is_of_the_inputs_given() -> None:
    model = trained(perceptron, (4, 12))
    plan = plan_of(model, "parallel", "1/2", "4x12")
    applied = apply(plan, model, nonlinear=False).eval()
    x = torch.randn(7, 12)
    report = warm_start_(applied, model, plan, inputs=(x,))
    with torch.no_grad():
        expected = (applied(x) - model(x)).norm() / model(x).norm()
    assert report.output == pytest.approx(expected.item(), rel=1e-5)
    named = warm_start_(applied, model, plan, inputs={"input": x})
    assert named == report


def test_all_of_a_factor_learns_where_the_rank_is_above_full() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8))
    plan = plan_of(model, "factorized", "3/4", "4x8")
    applied = apply(plan, model, nonlinear=False)
    assert applied[1].U.out_features > 8
    densified = densify(applied)
    warm_start_(densified, model, plan)
    densified(torch.randn(64, 8)).square().sum().backward()
    assert (densified[1].V.weight.grad.abs().sum(0) > 0).all()


# --- refusals -------------------------------------------------------------------------------------------


def test_a_nonlinearity_inside_members_is_refused_by_name() -> None:
    plan, model = planned("perceptron", "parallel"), host("perceptron")
    with pytest.raises(InputError, match=r"2 has a non-linearity inside.*nonlinear=False"):
        warm_start_(apply(plan, model), model, plan)


def test_misuse_is_refused() -> None:
    plan, model = planned("perceptron", "parallel", mask="fan-in"), host("perceptron")
    applied = apply(plan, model, nonlinear=False)
    with pytest.raises(InputError, match="cannot be drawn"):
        warm_start_(applied, model, plan, masks="draw")
    with pytest.raises(InputError, match="not one of its choices"):
        warm_start_(applied, model, plan, masks="other")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="meta"):
        warm_start_(apply(plan, host("perceptron").to("meta"), nonlinear=False), model, plan)
    with pytest.raises(StaleError, match="shape"):
        warm_start_(applied, nn.Sequential(nn.Linear(3, 40), *list(model.children())[1:]), plan)


def test_experts_of_a_stack_keep_as_many_weights_each() -> None:
    """The largest of all would leave an expert of small weights with nothing."""
    module: Any = nn.Module()
    module.weight = nn.Parameter(torch.zeros(3, 4, 5))
    mask = torch.zeros(3, 4, 5, dtype=torch.bool)
    mask[:, :2] = True
    module.register_buffer("weight_mask", mask)
    note_stack_(module, "weight", Stack(3))
    weight = (
        torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0))
        * torch.tensor([10.0, 1, 0.1])[:, None, None]
    )
    with torch.no_grad():
        start_plain_(module, "weight", weight, "draw")
    assert [int(expert.count_nonzero()) for expert in module.weight_mask] == [10, 10, 10]
    for values, kept in zip(weight, module.weight_mask, strict=True):
        assert values[kept].abs().min() >= values[~kept].abs().max()
