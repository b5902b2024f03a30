"""Zeros among activations against brute force: every product of a small network is looked at by itself."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from itertools import product

import pytest
import torch
from torch import Tensor, nn

from iftplan.base.errors import InputError
from iftplan.models.dynamic.selection import InputSelection, parse_selection
from iftplan.nn import activation_sparsity, apply, build, measure
from iftplan.nn.counting.activations.selectors import errors, threshold_of
from iftplan.nn.sources.zoo.gpt2 import gpt_char

Built = tuple[nn.Module, Tensor]


def sparse_input(*shape: int, seed: int = 0) -> Tensor:
    drawn = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return drawn.relu()


def by_hand_linear(x: Tensor, weight: Tensor, *, nonzeros: bool = False) -> int:
    """Products x_j·W_ij with x_j ≠ 0, one by one."""
    rows = x.reshape(-1, x.shape[-1]).tolist()
    return sum(
        1
        for row, (i, j) in product(rows, product(*map(range, weight.shape)))
        if row[j] != 0 and (not nonzeros or float(weight[i, j].detach()) != 0)
    )


def test_known_zeros_of_a_hand_built_network() -> None:
    """ReLU leaves 2, 1 and 0 of three hidden values for three samples."""
    network = nn.Sequential(nn.Linear(1, 3, bias=False), nn.ReLU(), nn.Linear(3, 5))
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([[1.0], [-1.0], [2.0]]))
    found = activation_sparsity(network, [torch.tensor([[1.0], [-1.0], [0.0]])])
    first, second = found.layers
    assert (first.elements, first.nonzeros, first.macs, first.effective_macs) == (3, 2, 9, 6)
    assert (second.elements, second.nonzeros, second.macs, second.effective_macs) == (9, 3, 45, 15)
    assert second.activation_ratio == second.effective_share == Fraction(1, 3)
    assert (found.macs, found.effective_macs, found.samples, found.loss) == (54, 21, 3, None)


@pytest.mark.parametrize("shape", [(4, 7), (2, 3, 7), (7,)])
@pytest.mark.parametrize("bias", [True, False])
def test_linear_layers_by_brute_force(shape: tuple[int, ...], bias: bool) -> None:
    layer, x = nn.Linear(7, 3, bias=bias), sparse_input(*shape)
    (found,) = activation_sparsity(layer, [x]).layers
    assert (found.nonzeros, found.effective_macs) == (int(x.count_nonzero()), by_hand_linear(x, layer.weight))


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("dilation", [1, 2])
def test_convolutions_by_brute_force(groups: int, stride: int, padding: int, dilation: int) -> None:
    layer = nn.Conv2d(4, 6, 3, stride, padding, dilation, groups=groups)
    x = sparse_input(2, 4, 7, 6)
    positions = layer(x).shape[-2:]
    skipped = 0
    for b, o, i, j in product(range(2), range(6), *map(range, positions)):
        for c, u, v in product(range(4 // groups), range(3), range(3)):
            row, column = i * stride - padding + u * dilation, j * stride - padding + v * dilation
            if 0 <= row < 7 and 0 <= column < 6:
                channel = o // (6 // groups) * (4 // groups) + c
                skipped += float(x[b, channel, row, column]) == 0
    (found,) = activation_sparsity(layer, [x]).layers
    assert found.macs == measure(layer, "2x4x7x6").macs
    assert found.macs - found.effective_macs == skipped


def test_transposed_convolutions_count_every_weight_of_an_input() -> None:
    layer, x = nn.ConvTranspose2d(4, 6, 3, groups=2), sparse_input(2, 4, 5, 5)
    (found,) = activation_sparsity(layer, [x]).layers
    assert found.effective_macs == int(x.count_nonzero()) * 3 * 9


def test_zero_weights_count_in_neither_number_where_that_is_asked() -> None:
    layer, x = nn.Linear(6, 4), sparse_input(5, 6)
    with torch.no_grad():
        layer.weight[layer.weight < 0] = 0
    (found,) = activation_sparsity(layer, [x], nonzeros=True).layers
    assert found.macs == 5 * int(layer.weight.count_nonzero())
    assert found.effective_macs == by_hand_linear(x, layer.weight, nonzeros=True)
    conv, images = nn.Conv2d(3, 2, 3, padding=1), sparse_input(1, 3, 4, 4)
    with torch.no_grad():
        conv.weight[conv.weight < 0] = 0
    (seen,) = activation_sparsity(conv, [images], nonzeros=True).layers
    zero = (images == 0).double()
    skipped = torch.conv2d(zero, (conv.weight != 0).double(), padding=1).sum()
    assert seen.macs == 16 * int(conv.weight.count_nonzero())
    assert seen.macs - seen.effective_macs == int(skipped)


class Functional(nn.Module):
    """A joint weight of which views are used, on either side of a product, and a product of activations."""

    def __init__(self) -> None:
        super().__init__()
        self.joint = nn.Parameter(torch.randn(6, 4))

    def forward(self, x: Tensor) -> Tensor:
        right = x @ self.joint[:3].t()  # (n, 4) · (4, 3)
        left = self.joint[3:] @ x.t()  # (3, 4) · (4, n)
        return right @ left


def test_weights_on_either_side_views_of_them_and_products_of_activations() -> None:
    x = sparse_input(5, 4)
    found = activation_sparsity(Functional(), [x])
    (layer,) = found.layers
    assert layer.weight == "joint"
    assert layer.effective_macs == 2 * 3 * int(x.count_nonzero())
    assert dict(found.unobserved) == {"the model:matmul": 5 * 3 * 5}
    assert found.effective_macs == layer.effective_macs + 75


class Unknown(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.inv(self.layer(x))


def test_unknown_costs_stay_unknown() -> None:
    found = activation_sparsity(Unknown(), [torch.randn(4, 4)])
    assert found.unknown
    assert found.effective_macs is None
    assert found.effective_share is None
    assert "not known" in str(found)


@pytest.mark.parametrize(
    "made",
    [
        lambda: (build("zoo:digits-cnn", device="cpu"), torch.randn(2, 1, 8, 8)),
        lambda: (build("zoo:resnet18-cifar", device="cpu"), torch.randn(1, 3, 32, 32)),
        lambda: (gpt_char(nn.ReLU), torch.randint(256, (2, 16))),
        lambda: (nn.LSTM(4, 8, batch_first=True), torch.randn(2, 3, 4)),
        lambda: (nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), torch.randn(2, 3, 8)),
    ],
    ids=["digits-cnn", "resnet18", "gpt", "lstm", "encoder"],
)
def test_static_counts_are_those_of_the_count_and_effective_ones_no_larger(
    made: Callable[[], Built],
) -> None:
    network, x = made()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    found = activation_sparsity(network, [x])
    assert found.macs == measure(network, x).macs
    assert found.effective_macs is not None
    assert 0 < found.effective_macs <= found.macs
    assert all(layer.effective_macs <= layer.macs for layer in found.layers)
    assert network.training or not any(m.training for m in network.modules())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_relu_has_zeros_and_a_gelu_none() -> None:
    torch.manual_seed(0)
    tokens = torch.randint(256, (2, 16))
    for activation, most in ((nn.ReLU, 0.7), (nn.GELU, 1.0)):
        found = activation_sparsity(gpt_char(activation), [tokens])
        behind = [layer for layer in found.layers if layer.name.endswith("mlp.c_proj")]
        ratios = {float(layer.activation_ratio) for layer in behind}
        assert len(behind) == 4
        assert max(ratios) <= most
        assert activation is nn.ReLU or ratios == {1.0}


# --- selections -------------------------------------------------------------------------------------------


def chosen_by_hand(x: Tensor, weight: Tensor, keep: int, *, weighted: bool) -> Tensor:
    """Inputs that stay, token by token with a sort."""
    norms = [float(weight[:, j].norm()) if weighted else 1.0 for j in range(x.shape[-1])]
    out = torch.zeros_like(x)
    for t, row in enumerate(x.tolist()):
        best = sorted(range(len(row)), key=lambda j: -abs(row[j]) * norms[j])[:keep]
        for j in best:
            out[t, j] = x[t, j]
    return out


@pytest.mark.parametrize("rule", ["teal", "wina"])
def test_top_shares_by_hand(rule: str) -> None:
    torch.manual_seed(1)
    layer, x = nn.Linear(8, 5), torch.randn(6, 8)
    targets = torch.randint(5, (6,))
    found = activation_sparsity(layer, [(x, targets)], selection=f"{rule}:3/4")
    stayed = chosen_by_hand(x, layer.weight.detach(), 2, weighted=rule == "wina")
    assert found.effective_macs == 6 * 2 * 5
    loss = nn.functional.cross_entropy(layer(stayed), targets)
    assert found.loss == pytest.approx(float(loss))
    lost = ((x - stayed) @ layer.weight.t()).norm(dim=1) / (x @ layer.weight.t()).norm(dim=1)
    assert found.layers[0].cett == pytest.approx(float(lost.mean()))


def test_wina_loses_less_than_teal_where_columns_differ() -> None:
    torch.manual_seed(2)
    layer, x = nn.Linear(64, 32, bias=False), torch.randn(50, 64)
    with torch.no_grad():
        layer.weight *= torch.rand(64) ** 3
    lost = [
        activation_sparsity(layer, [x], selection=f"{rule}:0.5").layers[0].cett for rule in ("teal", "wina")
    ]
    assert lost[0] is not None
    assert lost[1] is not None
    assert lost[1] < lost[0]


def test_a_threshold_is_the_largest_score_whose_error_is_small_enough() -> None:
    torch.manual_seed(3)
    x, w = torch.randn(9, 12).relu(), torch.randn(12, 6)
    size = x.abs() * w.norm(dim=1)
    found = threshold_of(x, w, 0.2)
    by_score = {float(s): float(errors(x, w, size >= s).mean()) for s in size.flatten().unique()}
    assert by_score[found] <= 0.2
    after = min(s for s in by_score if s > found)
    assert by_score[after] > 0.2


@pytest.mark.parametrize("target", ["0.05", "0.2", "0.4"])
def test_measured_errors_are_those_asked_for_on_the_same_tokens(target: str) -> None:
    torch.manual_seed(4)
    network = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 8))
    found = activation_sparsity(network, [torch.randn(100, 16)], selection=f"cett:{target}@2")
    plain, chosen = found.layers
    assert plain.cett is None
    assert plain.activation_ratio == 1
    assert chosen.cett is not None
    assert 0.8 * float(target) < chosen.cett <= float(target)
    assert set(found.thresholds) == {"2.weight"}


def test_known_thresholds_are_used_as_they_are() -> None:
    layer, x = nn.Linear(3, 2, bias=False), torch.tensor([[1.0, 0.5, 0.1]])
    with torch.no_grad():
        layer.weight.fill_(0.5)  # every column has the norm 1/√2
    selection = InputSelection(parse_selection("cett:0").rule, thresholds={"weight": 0.3})
    assert activation_sparsity(layer, [x], selection=selection).layers[0].nonzeros == 2


@pytest.mark.parametrize("text", ["zeros", "teal:0.5", "wina:0.25@a.*,b", "cett:0.2@*.c_proj"])
def test_selections_are_written_as_they_are_read(text: str) -> None:
    assert str(parse_selection(text)) == text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("win:0.5", "Did you mean 'wina'"),
        ("wina", "lacks its share of inputs"),
        ("cett@x", "lacks its error"),
        ("teal:1.5", "must be between 0 and 1"),
        ("zeros:0.5", "write zeros alone"),
    ],
)
def test_selections_that_cannot_be_read(text: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        parse_selection(text)


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(InputError, match="meta device"):
        activation_sparsity(build("zoo:digits-cnn"), [torch.randn(1, 1, 8, 8)])
    with pytest.raises(InputError, match="no batches"):
        activation_sparsity(nn.Linear(2, 2), [])


def test_masked_networks_are_measured_too() -> None:
    import iftplan as ift

    network = apply(ift.plan("zoo:digits-cnn", "wide", "3/4"), build("zoo:digits-cnn", device="cpu"))
    x = torch.randn(2, 1, 8, 8)
    masked = activation_sparsity(network, [x], nonzeros=True)
    dense = activation_sparsity(network, [x])
    assert masked.macs < dense.macs
    assert masked.effective_macs is not None
    assert masked.effective_macs <= masked.macs
