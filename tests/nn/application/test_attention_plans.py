"""Attention that is counted by pairs: read from networks, planned, applied and audited by three engines."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
from torch.nn.functional import scaled_dot_product_attention

import iftplan as ift
from iftplan.base.errors import InputError, MeasureError
from iftplan.masks.attention.product import AttentionCall
from iftplan.models.spec import InputSpec
from iftplan.nn import apply, block_pattern, measure_plan
from iftplan.nn.application.audit import audit_network
from iftplan.nn.reading.read import read_model
from iftplan.plans.audit.document import audit_document, parse_report

ENGINES = ("meta", "flop_counter", "fvcore")


class Attends(nn.Module):
    """Two linear layers around attention of 16 tokens in two heads of 4 channels."""

    def __init__(self, mask: str) -> None:
        super().__init__()
        self.mask, self.head_dim, self.split = mask, 4, 8
        self.first, self.joint, self.last = nn.Linear(6, 8), nn.Linear(8, 24), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            part.view(*part.shape[:-1], -1, self.head_dim).transpose(1, 2)
            for part in self.joint(self.first(x)).split(self.split, dim=2)
        )
        hidden = torch.ones(16, 16, dtype=torch.bool) if self.mask == "tensor" else None
        mixed = scaled_dot_product_attention(q, k, v, hidden, is_causal=self.mask == "causal")
        if self.mask == "two":
            mixed = mixed + scaled_dot_product_attention(q[:, :, :8], k, v).mean()
        y: Tensor = self.last(mixed.transpose(1, 2).flatten(2))
        return y


@pytest.mark.parametrize("mask", ["full", "causal", "tensor", "two"])
def test_sizes_and_masks_are_read(mask: str) -> None:
    (product,) = read_model(Attends(mask), "2x16x6").products
    expected = {"full": "full", "causal": "causal", "tensor": None}
    if mask == "two":  # calls of two sizes have no one count
        assert product.attention is None
    else:
        assert product.attention == AttentionCall(16, 16, 4, 4, expected[mask])
        assert product.macs == 2 * 2 * 16 * 16 * (4 + 4)


def test_masks_are_read_with_data_too() -> None:
    class Asks(Attends):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * float(x.sum().item() > 0)

    (product,) = read_model(Asks("causal"), torch.ones(2, 16, 6)).products
    assert product.attention == AttentionCall(16, 16, 4, 4, "causal")


@pytest.mark.parametrize("pattern", ["window:4", "block:4", "top-k:3", "strided:2"])
def test_a_plan_is_closed_applied_and_audited(pattern: str) -> None:
    network = Attends("causal")
    plan = ift.plan(
        network, "wide", "1/2", inputs="2x16x6", attention=pattern, scope="model", keep_dense="last"
    )
    (attention,) = (layer.attention for layer in plan.layers if layer.attention)
    assert attention.full_macs > attention.dense_full_macs
    structure = ift.audit(plan, measure_plan(plan, deepcopy(network), engines=ENGINES))
    assert structure.passed, structure.problems
    assert set(structure.counters) == {"closed_form", *ENGINES}
    assert len(set(structure.counters.values())) == 1
    with pytest.warns(
        UserWarning, match=f"by the pairs of {pattern}\\+causal, and the network still computes"
    ):
        made = apply(plan, network)
    report = ift.audit(made, plan)
    assert report.passed, report.problems
    assert report.measured_macs == plan.macs("model") == plan.dense_macs("model") - (plan.residual_macs or 0)
    assert report.full_macs == plan.full_macs("model") > report.measured_macs
    assert any("(planned, not measured): the network computes causal" in told for told in report.assumptions)
    assert audit_document(report)["attention"] == {
        "convention": "pairs",
        "pattern": pattern,
        "measured_full": report.full_macs,
    }
    assert parse_report(audit_document(report)) == report


def test_a_pattern_that_the_network_computes_is_measured() -> None:
    network = Attends("causal")
    plan = ift.plan(network, "wide", "1/2", inputs="2x16x6", attention="causal", scope="model")
    report = ift.audit(apply(plan, network), plan)
    assert report.passed, report.problems
    assert not any("attention" in told for told in report.assumptions)


def test_a_network_is_held_against_the_full_count_of_a_plan() -> None:
    network = Attends("causal")
    plan = ift.plan(network, "none", "1/2", inputs="2x16x6", attention="window:4")
    report = ift.audit(nn.Sequential(network), plan)
    assert report.expected_macs == plan.full_macs("model")


def test_attention_in_another_form_is_refused() -> None:
    class Products(Attends):
        def forward(self, x: Tensor) -> Tensor:
            q, k, v = self.joint(self.first(x)).chunk(3, dim=-1)
            y: Tensor = self.last((q @ k.transpose(1, 2)).softmax(-1) @ v)
            return y

    with pytest.raises(InputError, match="only calls of scaled_dot_product_attention"):
        ift.plan(Products("full"), "wide", inputs="2x16x6", attention="causal")


@pytest.mark.parametrize(
    ("attention", "pairs", "told"),
    [
        ("own", 16 * 17 // 2, ()),
        ("window:4", 16 * 4 - 4 * 3 // 2, ("asked for, not measured): the network computes causal",)),
    ],
)
def test_a_network_is_counted_by_pairs(attention: str, pairs: int, told: tuple[str, ...]) -> None:
    network, inputs = Attends("causal"), [InputSpec((2, 16, 6))]
    full = audit_network("net", network, inputs)
    report = audit_network("net", network, inputs, second="fvcore", attention=attention)
    assert (full.attention, full.full_macs) == ("", None)
    assert report.full_macs == full.measured_macs
    assert full.measured_macs - report.measured_macs == 2 * 2 * 8 * (16 * 16 - pairs)
    assert set(report.counters.values()) == {report.measured_macs}
    assert [any(words in found for found in report.assumptions) for words in told] == [True] * len(told)
    assert parse_report(audit_document(report)) == report


def test_pairs_of_a_mask_tensor_are_unknown() -> None:
    with pytest.raises(MeasureError, match="a mask whose values shapes do not tell"):
        audit_network("net", Attends("tensor"), [InputSpec((2, 16, 6))], attention="own")


def test_a_block_mask_is_a_pattern() -> None:
    def near(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (query - key).abs() < 4

    mask = create_block_mask(near, 1, 1, 12, 12, device="cpu", BLOCK_SIZE=4)
    pattern = block_pattern(mask)
    assert str(pattern) == "blocks:4:110/111/011"
    assert pattern.pairs(12, 12) == 7 * 16

    def by_head(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return query >= key + 4 * head

    with pytest.raises(InputError, match="keep different blocks"):
        block_pattern(create_block_mask(by_head, 1, 2, 8, 8, device="cpu", BLOCK_SIZE=4))
    with pytest.raises(InputError, match="4×2"):
        block_pattern(create_block_mask(near, 1, 1, 8, 8, device="cpu", BLOCK_SIZE=(4, 2)))


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_what_a_block_mask_computes_is_measured_as_it_is() -> None:
    class Flex(Attends):
        """Attention in blocks of 4, in its own code once it is planned."""

        blocks = False

        def forward(self, x: Tensor) -> Tensor:
            if not self.blocks:
                return super().forward(x)
            q, k, v = (
                part.view(*part.shape[:-1], -1, self.head_dim).transpose(1, 2)
                for part in self.joint(self.first(x)).split(self.split, dim=2)
            )
            mask = create_block_mask(
                lambda b, h, i, j: i // 4 == j // 4, 1, 1, 16, 16, device=x.device, BLOCK_SIZE=4
            )
            mixed = flex_attention(q, k, v, block_mask=mask)
            assert isinstance(mixed, Tensor)
            y: Tensor = self.last(mixed.transpose(1, 2).flatten(2))
            return y

    network = Flex("full")
    plan = ift.plan(network, "wide", "1/2", inputs="2x16x6", attention="block:4", scope="model")
    with pytest.warns(UserWarning, match="use FlexAttention"):
        made = apply(plan, network)
    assert isinstance(made, Flex)
    made.blocks = True
    report = ift.audit(made, plan)
    assert report.passed, report.problems
    assert not any("planned, not measured" in told for told in report.assumptions)
    assert any("whole blocks" in told for told in report.assumptions)


def test_gpt3_small_with_a_window_costs_its_budget() -> None:
    plan = ift.plan("zoo:gpt3-small", "wide", "1/2", attention="window:256", scope="model")
    report = ift.audit(plan, measure_plan(plan, engines=ENGINES))
    assert report.passed, report.problems
    pairs = 1024 * 1025 // 2
    assert report.measured_macs == report.dense_macs == 126_496_800_768 + 12 * 2 * 768 * pairs
    assert len(set(report.counters.values())) == 1
