"""Attention by other names, control flow as operators, compiled parts: counted exactly, or named."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._higher_order_ops import associative_scan, scan, while_loop
from torch._higher_order_ops.map import map as mapped
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from iftplan.models.counting import Values
from iftplan.models.spec import InputSpec
from iftplan.nn.counting.measure import measure
from iftplan.nn.counting.training_step import measure_step
from iftplan.nn.reading.read import read_model

ENGINES = ("meta", "flop_counter", "fvcore")
pytestmark = pytest.mark.filterwarnings("ignore")


def _causal(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
    return i >= j


class Flex(nn.Module):
    """Two heads of 16 after Linear(32, 96)."""

    def __init__(
        self, block: int | None = None, *, made: str = "forward", length: int = 8, bias: bool = False
    ) -> None:
        super().__init__()
        self.qkv = nn.Linear(32, 96)
        self.block, self.made = block and (block, block), made
        self.attend = torch.compile(flex_attention) if made == "compiled" else flex_attention
        self.bias = nn.Parameter(torch.zeros(2)) if bias else None
        if made == "init":
            self.mask = create_block_mask(
                _causal, None, None, length, length, device="cpu", BLOCK_SIZE=self.block
            )

    def forward(self, x: Tensor) -> Any:
        q, k, v = (t.view(x.shape[0], x.shape[1], -1, 16).transpose(1, 2) for t in self.qkv(x).chunk(3, -1))
        mask = self.mask if self.made == "init" else None
        if self.block and mask is None:
            mask = create_block_mask(
                _causal, None, None, x.shape[1], x.shape[1], device=x.device, BLOCK_SIZE=self.block
            )
        mod = (lambda score, b, h, i, j: score + self.bias[h]) if self.bias is not None else None
        return self.attend(q, k, v, score_mod=mod, block_mask=mask)


LINEAR = 8 * 32 * 96  # of 1x8x32


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("made", ["forward", "compiled"])
def test_flex_attention_is_attention(engine: str, made: str) -> None:
    table = measure(Flex(made=made), [InputSpec((1, 8, 32))], engine=engine)
    assert (table.macs, table.unknown) == (28672, {})


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("made", ["forward", "init"])
def test_a_block_mask_costs_the_blocks_that_it_keeps(engine: str, made: str) -> None:
    # 4x4 blocks of 2x2, of which a causal mask keeps 10: 40 scores for each of two heads, 32 multiply-adds a score
    table = measure(Flex(2, made=made), [InputSpec((1, 8, 32))], engine=engine)
    assert table.macs == LINEAR + 2 * 40 * 32
    assert any("those that its mask keeps" in sentence for sentence in table.assumptions)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("mask_mod", [None, _causal])
def test_a_mask_that_was_made_of_blocks_costs_these(engine: str, mask_mod: Any) -> None:
    model = Flex(2)
    counts, indices = torch.ones(1, 1, 4, dtype=torch.int32), torch.zeros(1, 1, 4, 4, dtype=torch.int32)
    indices[..., 0] = torch.arange(4)  # the diagonal of 4x4 blocks
    model.mask, model.made = (
        BlockMask.from_kv_blocks(counts, indices, BLOCK_SIZE=2, mask_mod=mask_mod),
        "init",
    )
    table = measure(model, [InputSpec((1, 8, 32))], engine=engine)
    assert (table.macs, table.values) == (LINEAR + 2 * 16 * 32, Values.UNASKED)


def test_blocks_are_cut_at_the_end_of_a_sequence() -> None:
    # seven positions in blocks of 4: 4x4, 3x4 and 3x3
    assert measure(Flex(4), [InputSpec((1, 7, 32))]).macs == 7 * 32 * 96 + 2 * (16 + 12 + 9) * 32


def test_what_changes_scores_may_have_weights() -> None:
    table = measure(Flex(bias=True), [InputSpec((1, 8, 32))])
    assert (table.macs, table.uncalled) == (28672, ())


def test_flex_attention_widens() -> None:
    class Wide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.flex, self.last = nn.Linear(8, 32), Flex(2), nn.Linear(32, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.flex(self.first(x)).transpose(1, 2).flatten(2))

    spec = read_model(Wide(), (InputSpec((1, 8, 8)),), widths=True)
    assert spec.macs == 8 * 8 * 32 + LINEAR + 2 * 40 * 32 + 8 * 32 * 4
    assert spec.couplings is not None, spec.refusal


def test_gradients_of_flex_attention() -> None:
    step = measure_step(Flex(2), [InputSpec((1, 8, 32))])
    # the linear layer reads the input: a weight gradient alone; each of the two products has two
    assert (step.forward, step.backward) == (LINEAR + 2560, LINEAR + 2 * 2560)


class Calls(nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8)
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(self, x)


ONE = 2 * 8 * 8  # a layer at 2x8
ROWS = (InputSpec((2, 8)),)


FUNCTIONS: dict[str, tuple[Callable[[Any, Tensor], Any], int]] = {
    "cond of a size": (
        lambda s, x: torch.cond(x.shape[0] > 5, lambda x: s.a(s.b(x)), lambda x: s.a(x), (x,)),
        ONE,
    ),
    "cond of equal branches": (
        lambda s, x: torch.cond(x.sum() > 0, lambda x: s.a(x), lambda x: s.b(x), (x,)),
        ONE,
    ),
    "scan": (lambda s, x: scan(lambda c, y: (c + s.a(y), s.b(y)), x[0], x)[1], 2 * ONE),
    "map": (lambda s, x: mapped(s.a, x), ONE),
    "associative_scan": (
        lambda s, x: associative_scan(lambda a, b: a * b, s.a(x), 0, combine_mode="generic"),
        ONE,
    ),
    "checkpoint": (lambda s, x: torch.utils.checkpoint.checkpoint(s.a, x, use_reentrant=False), ONE),
    "compiled": (lambda s, x: torch.compile(lambda y: s.b(s.a(y)))(x), 2 * ONE),
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_control_flow_is_carried_out(name: str, engine: str) -> None:
    function, macs = FUNCTIONS[name]
    table = measure(Calls(function), ROWS, engine=engine)
    assert (table.macs, table.unknown, [a for a in table.assumptions if "cond" in a]) == (macs, {}, [])


@pytest.mark.parametrize("engine", ENGINES)
def test_a_branch_that_data_decides_is_the_dearer_one(engine: str) -> None:
    def forward(s: Any, x: Tensor) -> Any:
        return torch.cond(x.sum() > 0, lambda x: s.a(x), lambda x: s.b(s.a(x)), (x,))

    table = measure(Calls(forward), ROWS, engine=engine)
    assert table.macs == 2 * ONE
    assert any(
        "its more expensive branch was counted (256 MACs; the other costs 128)" in a
        for a in table.assumptions
    )


@pytest.mark.parametrize("engine", ENGINES)
def test_a_loop_that_data_ends_is_counted_on_values(engine: str) -> None:
    def forward(s: Any, x: Tensor) -> Any:
        start = torch.zeros((), dtype=torch.int64, device=x.device)
        return while_loop(lambda i, x: i < 3, lambda i, x: (i + 1, s.a(x)), (start, x))[1]

    table = measure(Calls(forward), ROWS, engine=engine)
    assert table.macs == 3 * ONE
    assert any("for this input" in assumption for assumption in table.assumptions)


def test_a_step_counts_control_flow_and_its_gradients() -> None:
    forward, _ = FUNCTIONS["scan"]
    step = measure_step(Calls(forward), ROWS)
    assert (step.forward, step.backward) == (2 * ONE, 2 * ONE)  # both layers read the input


def test_everything_is_put_back() -> None:
    compile_, call = torch.compile, torch._ops.HigherOrderOperator.__call__
    measure(Flex(), [InputSpec((1, 8, 32))])
    assert torch.compile is compile_ and torch._ops.HigherOrderOperator.__call__ is call
    model, x = Flex(), torch.randn(1, 8, 32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        q, k, v = (t.view(1, 8, 2, 16).transpose(1, 2) for t in model.qkv(x).chunk(3, -1))
    assert torch.nn.functional.scaled_dot_product_attention(q, k, v).shape == (1, 2, 8, 16)
