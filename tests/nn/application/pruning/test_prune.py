"""One-shot pruning against calculators written from the papers' formulas."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

import iftplan as ift
from iftplan.base.errors import InputError
from iftplan.masks import parse_mask
from iftplan.nn import apply, holds, masked_weights, measure_applied, prune, prune_, sparsify
from iftplan.nn.application.pruning.inputs import input_rows
from iftplan.nn.application.pruning.sparsegpt import DAMPING, reconstructed
from iftplan.nn.masks.masked_weights import MaskedWeight, to_matrix
from tests.support.models.by_name import ByName

DRAW = torch.Generator().manual_seed(7)


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=DRAW, dtype=torch.float64)


def network(*layers: nn.Module) -> nn.Sequential:
    torch.manual_seed(3)
    made = nn.Sequential(*layers)
    for parameter in made.parameters():
        parameter.data.normal_()
    return made


# --- the calculator: optimal brain surgeon, column by column, every inverse anew ------------------------


def surgeon(weight: Tensor, hessian: Tensor, nnz: Sequence[int], width: int) -> tuple[Tensor, Tensor]:
    """Algorithm 1 of arXiv 2301.00774 without its factors: of the columns not yet done, (H_U)⁻¹ is inverted each time."""
    w = weight.clone()
    rows, columns = w.shape
    mask = torch.zeros(rows, columns, dtype=torch.bool)
    for block, kept in enumerate(nnz):
        places = range(block * width, min(columns, block * width + width))
        costs = {
            (r, j): float(w[r, j] ** 2 / torch.linalg.inv(hessian[j:, j:])[0, 0])
            for r in range(rows)
            for j in places
        }
        for r, j in sorted(costs, key=lambda place: -costs[place])[:kept]:
            mask[r, j] = True
        for j in places:
            inverse = torch.linalg.inv(hessian[j:, j:])
            for r in range(rows):
                if not mask[r, j]:
                    w[r, j:] -= w[r, j] / inverse[0, 0] * inverse[:, 0]
                    w[r, j] = 0
    return w, mask


def damped(products: Tensor) -> Tensor:
    return products + DAMPING * products.diagonal().mean() * torch.eye(len(products), dtype=torch.float64)


@pytest.mark.parametrize(("width", "nnz"), [(12, [20]), (4, [6, 7, 7]), (5, [8, 8, 4])])
def test_sparsegpt_is_the_surgeon_of_the_paper(width: int, nnz: Sequence[int]) -> None:
    weight, x = drawn(4, 12), drawn(12, 40)
    products = x @ x.T
    made, mask = reconstructed(weight, products[None], sum(nnz), block=width)
    expected, chosen = surgeon(weight, damped(products), nnz, width)
    assert torch.equal(mask, chosen)
    assert torch.allclose(made, expected, atol=1e-9)


def test_groups_of_n_m_are_chosen_one_after_the_other() -> None:
    weight, x = drawn(1, 12), drawn(12, 40)
    products = x @ x.T
    made, mask = reconstructed(weight, products[None], 6, parse_mask("2:4"))
    expected, chosen = surgeon(weight, damped(products), [2, 2, 2], 4)  # of one row, a group is a block
    assert torch.equal(mask, chosen)
    assert torch.allclose(made, expected, atol=1e-9)


def test_weights_that_stay_are_the_least_squares_solution() -> None:
    """Where only the first column goes, its error is spread over the others as well as it can be."""
    weight, x = drawn(3, 6), drawn(6, 30)
    weight[:, 0] = 1e-3  # the cheapest in every row
    products = x @ x.T
    made, mask = reconstructed(weight, products[None], 15)
    assert not mask[:, 0].any()
    h = damped(products)
    moved = torch.linalg.solve(h[1:, 1:], h[1:, :1] @ weight[:, :1].T).T
    assert torch.allclose(made[:, 1:], weight[:, 1:] + moved, atol=1e-9)


def test_inputs_that_are_always_zero_lose_their_weights() -> None:
    weight, x = drawn(3, 6), drawn(6, 30)
    x[2] = 0
    made, _ = reconstructed(weight, (x @ x.T)[None], 12)
    assert not made[:, 2].any()
    assert made.isfinite().all()


# --- Wanda ----------------------------------------------------------------------------------------------


def test_wanda_keeps_the_largest_products_of_every_row() -> None:
    layer = network(nn.Linear(6, 4, bias=False))
    x = drawn(10, 6).float() * torch.tensor([9.0, 1.0, 0.1, 3.0, 1.0, 0.5])
    weight = layer.get_parameter("0.weight").detach().clone()
    made = prune(sparsify(layer, "1/2", keep_dense="none", dense_start=True), "wanda", [x[:4], x[4:]])
    for row in range(4):
        worth = [abs(float(weight[row, j])) * float(x[:, j].square().sum().sqrt()) for j in range(6)]
        best = sorted(range(6), key=lambda j: -worth[j])[:3]
        assert made.get_parameter("0.weight")[row].nonzero().view(-1).tolist() == sorted(best)
        assert torch.equal(made.get_parameter("0.weight")[row, best], weight[row, best])


def test_layers_see_what_the_pruned_ones_before_them_give() -> None:
    model = network(nn.Linear(2, 2, bias=False), nn.Linear(2, 1, bias=False))
    model.get_parameter("0.weight").data = torch.tensor([[3.0, 0.0], [0.0, 2.0]])
    model.get_parameter("1.weight").data = torch.tensor([[1.0, 1.2]])
    masked = sparsify(model, "1/2", keep_dense="none", dense_start=True)
    # the first keeps one weight of each row; dense, the second would see (3, 2) and keep its first weight
    x = torch.tensor([[1.0, 1.0]])
    assert prune(masked, "wanda", [x]).get_parameter("1.weight").tolist() == [[1.0, 0.0]]
    model.get_parameter("0.weight").data = torch.tensor([[1.0, 2.0], [-2.0, 2.0]])
    # dense it gives (3, 0) for (1, 1), pruned (2, ±2)
    masked = sparsify(model, "1/2", keep_dense="none", dense_start=True)
    assert prune(masked, "wanda", [x]).get_parameter("1.weight").tolist()[0][0] == 0


def test_layers_may_be_called_by_name() -> None:
    layers = network(nn.Linear(6, 4), nn.Linear(4, 4))
    x = drawn(10, 6).float()
    made = [
        prune(sparsify(model, "1/2", keep_dense="none", dense_start=True), "sparsegpt", [x])
        for model in (layers, ByName(*layers))
    ]
    one, other = (model.state_dict() for model in made)
    assert all(torch.equal(one[name], other[name]) for name in one)


# --- inputs of convolutions -----------------------------------------------------------------------------

CONVOLUTIONS = {
    "3x3": nn.Conv2d(4, 6, 3, padding=1, bias=False),
    "strided": nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 0), bias=False),
    "dilated": nn.Conv2d(4, 6, 3, dilation=2, padding="same", bias=False),
    "grouped": nn.Conv2d(4, 6, 3, groups=2, bias=False),
    "depthwise": nn.Conv2d(4, 8, 3, groups=4, bias=False),
    "circular": nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular", bias=False),
    "1d": nn.Conv1d(4, 6, 3, stride=2, bias=False),
    "3d": nn.Conv3d(4, 6, 2, bias=False),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_rows_times_the_matrix_are_the_convolution(name: str) -> None:
    module = CONVOLUTIONS[name]
    x = torch.randn(2, 4, *[7] * len(module.kernel_size), generator=DRAW)
    weight = MaskedWeight("weight", module, "weight")
    rows, matrix = input_rows(weight, x), to_matrix(module.weight, weight)
    groups = matrix.view(module.groups, -1, matrix.shape[1])
    made = (rows @ groups.mT).movedim(1, 2).flatten(0, 1)  # (outputs, samples·positions)
    assert torch.allclose(made, module(x).movedim(1, 0).flatten(1), atol=1e-5)


# --- whole networks -------------------------------------------------------------------------------------


def small() -> nn.Sequential:
    return network(
        nn.Conv2d(4, 8, 3),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, groups=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64, 12),
    )


IMAGES = [torch.randn(8, 4, 6, 6, generator=DRAW) for _ in range(3)]


@pytest.mark.parametrize("structure", ["unstructured", "1:4", "2:4T", "block2x2", "fan-in"])
@pytest.mark.parametrize("method", ["magnitude", "wanda", "sparsegpt"])
def test_counts_and_structure_stay(method: str, structure: str) -> None:
    dense = small()
    masked = sparsify(
        dense, None if ":" in structure else "3/4", structure=structure, keep_dense="none", dense_start=True
    )
    before = {weight.name: int(weight.mask.sum()) for weight in masked_weights(masked)}
    made = prune(masked, method, IMAGES)  # type: ignore[arg-type]
    assert {weight.name: int(weight.mask.sum()) for weight in masked_weights(made)} == before
    for weight in masked_weights(made):
        assert holds(parse_mask(structure), to_matrix(weight.mask, weight))
        assert not weight.parameter[~weight.mask].any()
    assert made.training


def test_weights_that_make_up_change_outputs_less() -> None:
    dense = small().eval()
    masked = sparsify(dense, "1/2", keep_dense="none", dense_start=True)
    found = {
        method: float((prune(masked, method, IMAGES)(IMAGES[0]) - dense(IMAGES[0])).norm())
        for method in ("magnitude", "wanda", "sparsegpt")
    }
    assert found["sparsegpt"] < 0.8 * min(found["wanda"], found["magnitude"])


@pytest.mark.parametrize("short", [0, 1, 3, 10])
def test_short_groups_stay_as_many(short: int) -> None:
    weight, x = drawn(4, 16), drawn(16, 40)
    _, mask = reconstructed(weight, (x @ x.T)[None], 32 - short, parse_mask("2:4"))
    assert int(mask.sum()) == 32 - short
    assert holds(parse_mask("2:4"), mask)


def test_the_masks_of_a_plan_are_pruned_to_its_counts() -> None:
    dense = small()
    plan = ift.plan(dense, "none", 0.6, inputs="1x4x6x6", distribution="erk", keep_dense="none")
    made = prune_(apply(plan, dense, init=None, dense_start=True), "sparsegpt", IMAGES)
    assert [int(w.mask.sum()) for w in masked_weights(made)] == [x.nnz for x in plan.layers if x.maskable]
    assert measure_applied(plan, made).passed


def test_what_cannot_be_pruned_is_refused() -> None:
    with pytest.raises(InputError, match="has no masks"):
        prune(small())
    masked = sparsify(small(), "1/2", dense_start=True)
    with pytest.raises(InputError, match="no calibration data"):
        prune(masked, "wanda")
    masked.get_parameter("2.weight").data[0, 0] = float("nan")
    with pytest.raises(InputError, match="not finite"):
        prune(masked)
    attention = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    masked_attention = sparsify(attention, "1/2", keep_dense="none", dense_start=True)
    with pytest.raises(InputError, match=r"self_attn.in_proj_weight: .*MultiheadAttention"):
        prune(masked_attention, "wanda", [torch.randn(2, 4, 8)])
    assert prune(masked_attention).get_parameter("self_attn.in_proj_weight").count_nonzero() == 96
