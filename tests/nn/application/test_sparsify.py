"""Masks on any network without a plan: counts by hand, structures, and training under them."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
import torch
import torch.nn.utils.prune
from torch import nn

import iftplan as ift
from iftplan import nn as inn
from iftplan.masks.distributions import DensityLayer, Distribution, densities


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        *(
            nn.Linear(64, 128),
            nn.ReLU(),
            nn.Linear(128, 256),
            nn.ReLU(),
            nn.Linear(256, 64),
            nn.ReLU(),
            nn.Linear(64, 10),
        )
    )


def kept(model: nn.Module) -> dict[str, int]:
    return {weight.name: int(weight.mask.count_nonzero()) for weight in inn.masked_weights(model)}


def test_the_first_and_the_last_layer_stay_dense_and_the_rest_keep_a_quarter() -> None:
    net = network()
    sparse = inn.sparsify(net, "3/4")
    assert kept(sparse) == {"2.weight": 128 * 256 // 4, "4.weight": 256 * 64 // 4}
    assert not list(inn.masked_weights(net))
    for weight in inn.masked_weights(sparse):
        dense = net.get_parameter(weight.name)
        assert torch.equal(weight.parameter, dense * weight.mask)
        assert dense.abs()[weight.mask].min() >= dense.abs()[~weight.mask].max()
    inn.sparsify_(net, "3/4")
    assert kept(net) == kept(sparse)


def test_erk_spreads_density_as_the_paper_has_it() -> None:
    shares = [DensityLayer("2", (128, 256), 128 * 256), DensityLayer("4", (256, 64), 256 * 64)]
    spread = densities(shares, Fraction(128 * 256 + 256 * 64, 4), Distribution.ERK)
    expected = [round(density * share.cost) for density, share in zip(spread, shares, strict=True)]
    assert list(kept(inn.sparsify(network(), 0.75, distribution="ERK")).values()) == expected
    assert expected[0] * 256 * 64 < expected[1] * 128 * 256  # the larger layer is the sparser one


@pytest.mark.parametrize(
    ("structure", "sparsity"),
    [("2:4", None), ("1:4", "3/4"), ("2:8T", None), ("block4x4", 0.5), ("fan-in", 0.9), ("diagonal", 0.75)],
)
@pytest.mark.parametrize("criterion", ["magnitude", "random"])
def test_masks_have_their_structure(structure: str, sparsity: Any, criterion: Any) -> None:
    sparse = inn.sparsify(network(), sparsity, structure=structure, criterion=criterion)
    assert len(kept(sparse)) == 2
    for weight in inn.masked_weights(sparse):
        assert inn.holds(structure, weight.mask)
        assert not bool(weight.parameter[~weight.mask].count_nonzero())


def test_layers_are_kept_dense_by_name() -> None:
    assert list(kept(inn.sparsify(network(), 0.5, keep_dense=["first", "4"]))) == ["2.weight", "6.weight"]
    assert len(kept(inn.sparsify(network(), 0.5, keep_dense="none"))) == 4
    with pytest.raises(
        ift.InputError, match=r"'7' is no layer of the Sequential. Did you mean '6'\?|'7' is no layer"
    ):
        inn.sparsify(network(), 0.5, keep_dense="7")


class Tied(nn.Module):
    """An embedding that is the head too, and a layer that is registered after it."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(50, 32)
        self.late = nn.Linear(32, 32)
        self.early = nn.Linear(32, 32)
        self.mix = nn.MultiheadAttention(32, 2, batch_first=True)
        self.head = nn.Linear(32, 50, bias=False)
        self.head.weight = self.table.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.early(self.table(tokens))
        out: torch.Tensor = self.head(self.late(self.mix(x, x, x, need_weights=False)[0]))
        return out


def test_an_embedding_is_first_a_tied_head_is_last_and_neither_is_masked() -> None:
    inner = ["early.weight", "late.weight", "mix.in_proj_weight", "mix.out_proj.weight"]
    assert sorted(kept(inn.sparsify(Tied(), 0.5))) == inner
    assert sorted(kept(inn.sparsify(Tied(), 0.5, inputs="2x7:int64"))) == inner


def test_with_inputs_roles_are_those_of_the_graph() -> None:
    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.out, self.inner, self.first = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)
            self.unused = nn.Linear(8, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.out(self.inner(self.first(x)))
            return out

    assert list(kept(inn.sparsify(Backwards(), 0.5))) == ["inner.weight", "first.weight"]
    assert list(kept(inn.sparsify(Backwards(), 0.5, inputs=torch.zeros(2, 8)))) == ["inner.weight"]


def test_convolutions_transposed_and_grouped_ones_too() -> None:
    net = nn.Sequential(
        nn.Conv2d(4, 8, 3),
        nn.Conv2d(8, 16, 3, groups=2),
        nn.ConvTranspose2d(16, 8, 3),
        nn.LSTM(8, 8),
        nn.Conv2d(8, 2, 1),
    )
    found = kept(inn.sparsify(net, 0.5, structure="2:4"))
    assert found == {
        "1.weight": 16 * 4 * 9 // 2,
        "2.weight": 16 * 8 * 9 // 2,
        "3.weight_ih_l0": 128,
        "3.weight_hh_l0": 128,
    }


def test_it_trains_under_masking_in_the_structure_it_was_made_in() -> None:
    sparse = inn.sparsify(network(), structure="2:4")
    optimizer = torch.optim.SGD(sparse.parameters(), 0.05)
    masks = inn.Masking(sparse, optimizer, inn.RigL(interval=2, end=8))
    before = {name: mask.clone() for name, mask in masks.masks().items()}
    for _ in range(9):
        sparse(torch.randn(16, 64)).square().mean().backward()
        masks.step()
        optimizer.step()
        optimizer.zero_grad()
    moved = [not torch.equal(mask, before[name]) for name, mask in masks.masks().items()]
    assert any(moved)
    assert all(inn.holds("2:4", mask) for mask in masks.masks().values())


def test_random_masks_follow_the_seed_alone() -> None:
    first, again, other = (inn.sparsify(network(), 0.5, criterion="random", seed=seed) for seed in (1, 1, 2))
    masks = [[weight.mask for weight in inn.masked_weights(model)] for model in (first, again, other)]
    assert all(map(torch.equal, masks[0], masks[1]))
    assert not any(map(torch.equal, masks[0], masks[2]))


def test_a_network_without_values_gets_masks_without_values() -> None:
    with torch.device("meta"):
        net = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8))
    assert [weight.mask.is_meta for weight in inn.masked_weights(inn.sparsify(net, 0.5))] == [True]


def pruned() -> nn.Module:
    net = network()
    torch.nn.utils.prune.random_unstructured(net[2], "weight", 0.5)
    return net


def not_finite() -> nn.Module:
    net = network()
    net[4].weight.data[0, 0] = float("nan")
    return net


@pytest.mark.parametrize(
    ("make", "options", "says"),
    [
        (network, {"structure": "2:4"}, "2:4 masks have sparsity 0.5, not 0.75; the nearest is `sparsity='0.5'`"),
        (network, {"distribution": "ERKK"}, "Did you mean 'erk'"),
        (network, {"criterion": "size"}, "'magnitude', 'random'"),
        (network, {"mask": "2:4"}, "Did you mean 'structure'"),
        (network, {"structure": "block3x3"}, "2: a 128×256 weight .* cannot be divided into block3x3 .* `keep_dense=\\['first', 'last', '2'\\]`"),
        (nn.ReLU, {}, "the ReLU has no linear"),
        (lambda: nn.Linear(4, 4), {}, "leaves nothing to mask of the Linear"),
        (lambda: inn.sparsify(network(), 0.5), {}, "2.weight is masked already"),
        (pruned, {}, "2.weight is computed from 2.weight_orig"),
        (not_finite, {}, "4.weight holds values that are not finite"),
    ],
)  # fmt: skip
def test_a_network_that_is_refused_stays_as_it_was(make: Any, options: dict[str, Any], says: str) -> None:
    net = make()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(ift.IftplanError, match=says):
        inn.sparsify_(net, 0.75, **options)
    after = net.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(value.nan_to_num(), before[name].nan_to_num()) for name, value in after.items())


def test_layers_without_a_size_are_refused_instead_of_left_dense() -> None:
    model = nn.Sequential(nn.LazyLinear(32), nn.Linear(32, 32), nn.Linear(32, 4))
    with pytest.raises(ift.InputError, match="0 has no size yet"):
        inn.sparsify(model, "1/2", keep_dense="none")


def test_no_layer_is_left_without_a_weight() -> None:
    model = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 64))
    with pytest.raises(ift.InfeasibleError, match=r"leaves no weight of 0, and nothing would pass through"):
        inn.sparsify(model, 0.95, keep_dense="none")
    with pytest.raises(ift.InfeasibleError, match=r"leaves no weight of 0, and nothing would pass through"):
        inn.sparsify(model, 0.95, keep_dense="none", inputs="1x2")


def test_a_network_whose_layers_are_all_kept_dense_is_refused_with_inputs_too() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    for inputs in (None, "1x8"):
        with pytest.raises(ift.InputError, match="keep_dense leaves nothing to mask"):
            inn.sparsify(model, "3/4", inputs=inputs)
