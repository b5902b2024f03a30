"""Gradient ranks of placements against the gradients of adapters that are there: linear maps that begin at zero."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from iftplan.base.errors import InputError
from iftplan.nn import gradient_ranks
from iftplan.plans.search.adapters import Placement, placements

BLOCKS = ("0", "1", "2")


class Adapted(nn.Module):
    """Three blocks, and a map from one's input to another's output; at the second pass where that one is earlier."""

    def __init__(self, blocks: nn.Sequential, one: Placement) -> None:
        super().__init__()
        self.blocks, self.one = blocks, one
        self.map = nn.Parameter(torch.zeros(5, 5, dtype=torch.double))

    def forward(self, x: Tensor, carried: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        read = None
        for i, block in enumerate(self.blocks):
            if i == self.one.reads:
                read = x
            given = carried if self.one.kind == "recurrent" else read
            x = block(x)
            if i == self.one.writes and given is not None:
                x = x + given @ self.map
        return x, read


def blocks() -> nn.Sequential:
    torch.manual_seed(0)
    made = nn.Sequential(*[nn.Sequential(nn.Linear(5, 5), nn.Tanh()) for _ in BLOCKS]).double()
    with torch.no_grad():
        made[1][0].weight[2:] = 0
        made[1][0].bias[2:] = 0
    return made


def batch() -> tuple[Tensor, Tensor]:
    drawn = torch.Generator().manual_seed(3)
    return tuple(torch.randn(2, 4, 5, generator=drawn, dtype=torch.double) for _ in range(2))  # type: ignore[return-value]


@pytest.mark.parametrize("one", placements(3))
def test_the_rank_is_that_of_an_adapters_gradient(one: Placement) -> None:
    model, (x, target) = blocks(), batch()
    found = gradient_ranks(model, BLOCKS, lambda: (model(x) - target).square().sum(), tolerance=1e-9)
    adapted = Adapted(model, one)
    output, read = adapted(x)
    if one.kind == "recurrent":
        assert read is not None
        output, _ = adapted(x, read.detach())
    (output - target).square().sum().backward()
    assert adapted.map.grad is not None
    wanted = int(torch.linalg.matrix_rank(adapted.map.grad, rtol=1e-9))
    assert found[one] == wanted
    # the second block writes two numbers and zeros, and its input has gradients from two alone
    assert wanted == (2 if one.reads == 2 or one.writes == 0 else 5)


def test_small_singular_values_do_not_count() -> None:
    model, (x, target) = blocks(), batch()
    ranks = [
        gradient_ranks(
            model, BLOCKS, lambda: (model(x) - target).square().sum(), kinds=["usual"], tolerance=t
        )
        for t in (1e-9, 0.05, 0.999)
    ]
    assert ranks[0].keys() == {Placement(i, i) for i in range(3)}
    assert all(a >= b >= c == 1 for a, b, c in zip(*(r.values() for r in ranks), strict=True))
    assert sum(ranks[1].values()) < sum(ranks[0].values())


def test_blocks_of_other_shapes_are_refused() -> None:
    model = nn.Sequential(nn.Linear(5, 5), nn.Linear(5, 4))
    x = torch.randn(2, 5)
    with pytest.raises(InputError, match="2x4 and 2x5"):
        gradient_ranks(model, ["0", "1"], lambda: model(x).sum())
    with pytest.raises(InputError, match="1 runs 0 times"):
        gradient_ranks(model, ["0", "1"], lambda: model[0](x).sum())


def test_blocks_may_be_called_by_name() -> None:
    model, (x, target) = blocks(), batch()

    def named() -> Tensor:
        y = x
        for block in model:
            y = block(input=y)
        return (y - target).square().sum()

    assert gradient_ranks(model, BLOCKS, named) == gradient_ranks(
        model, BLOCKS, lambda: (model(x) - target).square().sum()
    )


def test_a_path_that_is_none_is_named_and_leaves_no_hooks() -> None:
    model, (x, target) = blocks(), batch()
    with pytest.raises(InputError, match="no module '9'"):
        gradient_ranks(model, ["0", "9"], lambda: (model(x) - target).square().sum())
    assert not model[0]._forward_hooks and not model[0]._forward_pre_hooks
