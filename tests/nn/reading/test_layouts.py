"""Weights that are used otherwise than torch's own layers use theirs: which way they lie, and how much of them works."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own customary name
from torch import Tensor, nn

import iftplan as ift
from iftplan.models.document import parse_spec, spec_document
from iftplan.nn import apply
from iftplan.nn.application.audit import measure_applied
from iftplan.plans.document.plan import parse_plan, plan_document
from iftplan.plans.plan import Plan


class Between(nn.Module):
    """Linear layers on both sides of a parameter of one's own."""

    def __init__(
        self, parameter: Tensor, use: Callable[[Tensor, Tensor], Tensor], inputs: int, outputs: int
    ) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(16, inputs), nn.Linear(outputs, 4)
        self.w, self.use = nn.Parameter(parameter), use

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.down(self.use(self.up(x).relu(), self.w).relu())
        return found


def matmul(x: Tensor, w: Tensor) -> Tensor:
    return x @ w


def einsum(x: Tensor, w: Tensor) -> Tensor:
    return torch.einsum("bi,io->bo", x, w)


def as_kernel(x: Tensor, w: Tensor) -> Tensor:
    return F.conv1d(x.unsqueeze(-1), w.unsqueeze(-1)).squeeze(-1)


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def planned(model: nn.Module, family: str, mask: str, inputs: str = "6x16") -> tuple[Plan, nn.Module]:
    plan = ift.plan(ift.read_model(model, inputs), family, "3/4", mask=mask)
    applied = apply(plan, model)
    report = measure_applied(plan, applied)
    assert report.passed, report.problems
    return plan, applied


LAYOUTS: dict[str, tuple[Tensor, Callable[[Tensor, Tensor], Tensor], bool]] = {
    "x @ w, wide": (drawn(32, 40), matmul, True),
    "x @ w, square": (drawn(32, 32), matmul, True),
    "einsum": (drawn(32, 32), einsum, True),
    "stacked once": (drawn(1, 32, 40), lambda x, w: x @ w[0], True),
    "F.linear": (drawn(40, 32), F.linear, False),
    "F.linear, square": (drawn(32, 32), F.linear, False),
    "1×1 kernel": (drawn(40, 32), as_kernel, False),
}


@pytest.mark.parametrize("family", ["none", "wide"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_patterns_run_along_the_inputs_however_a_weight_lies(name: str, family: str) -> None:
    """Constant fan-in is as many inputs for every output, and whole channels are whole outputs."""
    parameter, use, inputs_first = LAYOUTS[name]
    outputs = parameter.shape[-1] if inputs_first else parameter.shape[-2]
    for mask, counts in (("fan-in", 1), ("channel", 2)):
        model = Between(parameter.clone(), use, 32, outputs)
        plan, applied = planned(model, family, mask)
        layer = next(layer for layer in plan.layers if layer.weight == "w")
        assert layer.after is not None
        weight = applied.get_parameter("w")
        kept = (weight != 0).view(weight.shape[-2:])
        matrix = kept.mT if inputs_first else kept  # (outputs, inputs)
        assert matrix.shape == (layer.after.out_channels, layer.after.in_channels)
        assert int(matrix.sum()) == layer.nnz
        each = matrix.sum(1)
        assert len(each.unique()) <= counts
        if mask == "channel":
            assert set(each.tolist()) <= {0, matrix.shape[1]}


def test_a_square_weight_says_in_documents_which_way_it_lies() -> None:
    spec = ift.read_model(Between(drawn(32, 32), matmul, 32, 32), "6x16")
    assert [weight.weight for weight in spec.layers if weight.inputs_first] == ["w"]
    assert parse_spec(spec_document(spec)) == spec
    plan = ift.plan(spec, "wide", "3/4", mask="fan-in")
    assert [layer.weight for layer in plan.layers if layer.inputs_first] == ["w"]
    assert parse_plan(plan_document(plan)) == plan


@pytest.mark.parametrize("mask", ["unstructured", "fan-in", "2:8"])
@pytest.mark.parametrize("family", ["none", "wide"])
def test_a_vector_is_one_output(mask: str, family: str) -> None:
    class Scored(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.v = nn.Linear(16, 32), nn.Linear(32, 32), nn.Parameter(drawn(32))

        def forward(self, x: Tensor) -> Tensor:
            found: Tensor = (self.b(self.a(x)).relu() @ self.v).unsqueeze(-1)
            return found

    plan = ift.plan(ift.read_model(Scored(), "6x16"), family, "3/4", mask=mask, keep_dense="none")
    applied = apply(plan, Scored())
    assert measure_applied(plan, applied).passed
    layer = next(layer for layer in plan.layers if layer.weight == "v")
    assert (str(layer.before), int((applied.v != 0).sum())) == ("linear:32-1@6", layer.nnz)
    assert 0 < layer.nnz < layer.capacity


@pytest.mark.parametrize("multiplier", [1, 2, 3])
def test_a_depthwise_transposed_convolution_grows_with_its_multiplier(multiplier: int) -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 12, 3),
        nn.ConvTranspose2d(12, 12 * multiplier, 3, groups=12, stride=2, output_padding=1),
        nn.ReLU(),
        nn.Conv2d(12 * multiplier, 4, 1),
    )
    plan = ift.plan(ift.read_model(model, "2x3x9x9"), "wide", "3/4", keep_dense="none")
    layer = plan.layers[1]
    assert layer.after is not None and layer.after.in_channels == 24
    assert (layer.after.out_channels, layer.after.groups) == (24 * multiplier, 24)
    applied = apply(plan, model)
    assert measure_applied(plan, applied).passed
    assert applied(torch.zeros(2, 3, 9, 9)).shape == model(torch.zeros(2, 3, 9, 9)).shape


def test_a_depthwise_convolution_reads_as_many_channels_as_it_has_groups() -> None:
    model = nn.Sequential(nn.Conv2d(3, 12, 3, groups=3), nn.Conv2d(12, 4, 1))
    plan = ift.plan(ift.read_model(model, "1x3x9x9"), "wide", "3/4", keep_dense="none")
    assert str(plan.layers[0].after).startswith("conv3x3:3-12@49,groups=3")


def test_a_weight_of_which_a_part_works_is_counted_and_not_masked() -> None:
    """Half of the inputs' columns: 6·16·24 MACs, of a weight that is twice as large."""
    sliced = Between(drawn(24, 32), lambda x, w: F.linear(x[..., :16], w[:, :16]), 32, 24)
    spec = ift.read_model(sliced, "6x16")
    (layer,) = [weight for weight in spec.layers if weight.weight == "w"]
    assert layer.layer.dense_macs == 6 * 16 * 24
    assert "only a part of it is used" in layer.unmaskable


def test_parts_that_make_up_a_weight_and_work_equally_are_masked() -> None:
    """Queries, keys and values of one sequence take a third of the weight each; of two sequences, unequally often."""
    attention = nn.MultiheadAttention(16, 2, batch_first=True)

    class Attending(nn.Module):
        def __init__(self, keys: int) -> None:
            super().__init__()
            self.attention, self.keys = attention, keys

        def forward(self, x: Tensor) -> Tensor:
            found: Tensor = self.attention(x, x[:, : self.keys], x[:, : self.keys], need_weights=False)[0]
            return found

    for keys, masked in ((12, True), (6, False)):
        spec = ift.read_model(Attending(keys), "2x12x16")
        (layer,) = [weight for weight in spec.layers if weight.weight == "attention.in_proj_weight"]
        assert layer.layer.dense_macs == 2 * 16 * 16 * (12 + 2 * keys)
        assert (not layer.unmaskable) is masked
