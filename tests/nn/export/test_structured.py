"""Structured models on their way out: condensed layers and 2:4 tensors compute what the masked ones did."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.sparse._semi_structured_conversions import (
    sparse_semi_structured_from_dense_cutlass as packed,
)
from torch.sparse._semi_structured_conversions import (
    sparse_semi_structured_to_dense_cutlass as unpacked,
)

import iftplan as ift
from iftplan.base.errors import InputError
from iftplan.masks import parse_mask
from iftplan.nn import apply, condense, finalize, semi_structured
from iftplan.nn.export.condensed import CondensedConv, CondensedLinear
from iftplan.nn.export.tensor_cores import unpackable
from iftplan.nn.masks.best import choose


class Network(nn.Module):
    """Convolutions of every kind that has a condensed form, and linear layers on several dimensions."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.body = nn.Conv2d(16, 24, 3, stride=2, padding=(1, 2), dilation=(1, 2))
        self.point = nn.Conv2d(24, 32, 1, bias=False)
        self.line = nn.Conv1d(32, 24, 5, padding=2, padding_mode="circular")
        self.mix = nn.Linear(24, 40)
        self.head = nn.Linear(40, 7, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.point(self.body(self.stem(x).relu()).relu()).flatten(2)
        return self.head(self.mix(self.line(x).relu().transpose(1, 2)).relu())


INPUT = "2x3x9x8"


def applied(structure: str, sparsity: str = "1/2") -> nn.Module:
    torch.manual_seed(0)
    spec = ift.read_model(Network(), INPUT, widths=False)
    return apply(ift.plan(spec, None, sparsity, mask=structure), Network()).eval()


@pytest.mark.parametrize("structure", ["fan-in", "2:4", "channel", "unstructured", "block2x2", "2:4T+pad"])
@pytest.mark.parametrize("out_of_masks", [False, True])
def test_a_condensed_model_gives_the_same_outputs(structure: str, out_of_masks: bool) -> None:
    model = applied(structure)
    sparse = condense(finalize(model) if out_of_masks else model)
    kinds = [type(module) for module in sparse.modules()]
    assert kinds.count(CondensedConv) == 3
    assert kinds.count(CondensedLinear) == 1
    x = torch.randn(2, 3, 9, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert (sparse(x) - model(x)).abs().max() < 2e-5 * model(x).abs().max() + 1e-6
    assert isinstance(model.mix, nn.Linear), "the model itself was changed"


def test_a_constant_fan_in_holds_no_zero_and_as_many_values_as_weights_are_kept() -> None:
    model = applied("fan-in", "3/4")
    sparse = condense(model)
    for name in ("body", "point", "line"):
        (rows,) = getattr(sparse, name).groups
        assert rows.values.numel() == int(getattr(model, name).weight_mask.sum())
        assert (rows.values != 0).all()
        assert rows.fan_in == int(getattr(model, name).weight_mask.flatten(1).sum(1)[0])
    assert sparse.mix.rows.values.numel() == int(model.mix.weight_mask.sum())


def test_a_kept_weight_that_is_zero_stays_kept_and_outputs_without_weights_are_left_out() -> None:
    layer = nn.Sequential(nn.Linear(8, 4))
    mask = choose(parse_mask("fan-in"), layer[0].weight.detach().abs(), 8)
    mask[2] = False  # ablated
    with torch.no_grad():
        layer[0].weight.mul_(mask)
        layer[0].weight[0, mask[0]] = 0.0  # just grown
    layer[0].register_buffer("weight_mask", mask)
    sparse = condense(layer)
    assert sparse[0].rows.values.shape == (3, 2)
    x = torch.randn(5, 8)
    assert torch.allclose(sparse(x), layer(x), atol=1e-6)
    assert torch.allclose(sparse(x)[:, 2], layer[0].bias[2].expand(5))


@pytest.mark.parametrize("groups", [2, 4])
def test_grouped_convolutions_read_their_own_channels(groups: int) -> None:
    model = nn.Sequential(nn.Conv2d(8, 12, 3, groups=groups, bias=True))
    with torch.no_grad():
        weight = model.get_parameter("0.weight")
        weight.mul_(torch.rand_like(weight) < 0.4)
    x = torch.randn(2, 8, 6, 5)
    assert torch.allclose(condense(model)(x), model(x), atol=1e-5)


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (nn.Sequential(nn.Linear(4, 4)), "the model is not sparse"),
        (nn.Linear(4, 4), "the model is a Linear"),
        (nn.Sequential(nn.Conv3d(2, 2, 1)), "0 is a Conv3d"),
    ],
)
def test_what_has_no_condensed_form_is_refused(model: nn.Module, says: str) -> None:
    if "sparse" not in says:
        with torch.no_grad():
            next(model.parameters()).flatten()[0] = 0
    with pytest.raises(InputError, match=says):
        condense(model)


# --- 2:4 as torch packs it ----------------------------------------------------------------------------


def test_what_keeps_nothing_gives_its_bias() -> None:
    """A channel of a depthwise convolution, and a whole layer."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), nn.Flatten(), nn.Linear(16, 3))
    with torch.no_grad():
        model[0].weight[1] = 0
        model[2].weight.zero_()
        x = torch.randn(2, 4, 4, 4)
        torch.testing.assert_close(condense(model)(x), model(x))
        with torch.autocast("cpu", torch.bfloat16):
            torch.testing.assert_close(condense(model)(x), model(x), rtol=0.05, atol=0.05, check_dtype=False)


def test_a_host_that_reads_the_weight_of_its_layers_calls_them() -> None:
    torch.manual_seed(0)
    host = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True).eval()
    model = ift.nn.sparsify(
        nn.Sequential(host), "1/2", keep_dense=["0.self_attn.in_proj_weight", "0.self_attn.out_proj"]
    )
    x = torch.randn(2, 5, 16)
    with torch.no_grad():
        torch.testing.assert_close(condense(model).eval()(x), model(x))


def test_convolutions_that_compute_something_else_are_refused() -> None:
    class Causal(nn.Conv1d):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(nn.functional.pad(x, (2, 0)))

    model = nn.Sequential(Causal(4, 4, 3), nn.AdaptiveAvgPool1d(1))
    with torch.no_grad():
        model[0].weight[0, 0] = 0
    with pytest.raises(InputError, match="0 is a Causal, but only"):
        condense(model)


def test_compact_layers_are_expanded_first() -> None:
    torch.manual_seed(0)
    model = ift.nn.sparsify(
        nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64)), "9/10", keep_dense="none"
    )
    x, expected = torch.randn(3, 64), {name: p.clone() for name, p in finalize(model).state_dict().items()}
    y = model(x)
    compact = ift.nn.compact_(model)
    assert isinstance(condense(compact)[0], CondensedLinear)
    torch.testing.assert_close(condense(compact)(x), y)
    found = finalize(compact).state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def two_of_four(dtype: torch.dtype, structure: str = "2:4") -> Tensor:
    weight = torch.randn(64, 128, generator=torch.Generator().manual_seed(0))
    return (weight * choose(parse_mask(structure), weight.abs(), 64 * 64)).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("structure", ["2:4", "2:4T"])
def test_what_can_be_packed_comes_back_whole(dtype: torch.dtype, structure: str) -> None:
    """torch's own conversion, which runs on the CPU: nothing is lost of a weight that we call packable."""
    weight = two_of_four(dtype, structure)
    assert unpackable(weight) == ""
    assert torch.equal(unpacked(*packed(weight)), weight)
    if structure == "2:4T":  # and so does its transpose, for the gradient of the inputs
        assert torch.equal(unpacked(*packed(weight.T.contiguous())), weight.T)


def test_float32_is_refused_because_torch_keeps_one_of_two_there() -> None:
    weight = two_of_four(torch.float32)
    assert "1 of 2" in unpackable(weight)
    assert not torch.equal(unpacked(*packed(weight)), weight), "torch has changed: allow float32"


@pytest.mark.parametrize(
    ("weight", "says"),
    [
        (torch.ones(64, 128, dtype=torch.float16), "more than two"),
        (torch.zeros(60, 128, dtype=torch.float16), "multiples of 32 and 64"),
        (torch.zeros(64, 96, dtype=torch.bfloat16), "multiples of 32 and 64"),
    ],
)
def test_what_cannot_be_packed_says_why(weight: Tensor, says: str) -> None:
    assert says in unpackable(weight)


def test_without_a_cuda_device_packing_is_refused_by_name() -> None:
    model = nn.Sequential(nn.Linear(128, 64)).half()
    model[0].weight = nn.Parameter(two_of_four(torch.float16))
    with pytest.raises(InputError, match=r"need a CUDA device .* iftplan\.nn\.condense"):
        semi_structured(model)
    with pytest.raises(InputError, match="nothing can be packed: 0: weights are float32"):
        semi_structured(model.float())
    with pytest.raises(InputError, match="no sparse linear layer"):
        semi_structured(nn.Sequential(nn.Conv2d(3, 3, 3)))


@pytest.mark.skipif(
    not torch.cuda.is_available(), reason="semi-structured tensors multiply on CUDA devices only"
)
def test_a_packed_model_gives_the_same_outputs() -> None:
    model = nn.Sequential(nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 8)).half().cuda()
    model[0].weight = nn.Parameter(two_of_four(torch.float16).cuda())
    x = torch.randn(32, 128, device="cuda", dtype=torch.float16)
    sparse = semi_structured(model)
    assert type(sparse[0].weight).__name__.startswith("SparseSemiStructured")
    assert torch.allclose(sparse(x), model(x), atol=1e-2, rtol=1e-2)
