"""Widths of models whose data decide how much they compute: wide plans of detectors and their like."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import iftplan as ift
from iftplan.base.errors import IftplanError
from iftplan.nn import apply, measure_applied, read_model

ROWS = 6


class Net(nn.Module):
    """Two layers on all rows, two on those whose first input is positive."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 16), nn.Linear(16, 12)
        self.third, self.last = nn.Linear(12, 20), nn.Linear(20, 4)

    def forward(self, x: Tensor) -> Tensor:
        chosen = self.chosen(x, self.second(self.first(x).relu()).relu())
        return self.last(self.third(chosen).relu()).mean(0)

    def chosen(self, x: Tensor, hidden: Tensor) -> Tensor:
        return hidden[x[:, 0] > 0]


class ByNumbers(Net):
    def chosen(self, x: Tensor, hidden: Tensor) -> Tensor:
        return hidden[(x[:, 0] > 0).nonzero()[:, 0]]


class Attending(Net):
    def chosen(self, x: Tensor, hidden: Tensor) -> Tensor:
        kept = hidden[x[:, 0] > 0]
        return (kept @ kept.t()).softmax(1) @ kept


class Joined(Net):
    def __init__(self) -> None:
        super().__init__()
        self.third = nn.Linear(28, 20)
        self.before: Tensor | None = None

    def chosen(self, x: Tensor, hidden: Tensor) -> Tensor:
        return torch.cat((hidden, self.first(x)), 1)[x[:, 0] > 0]


class UpTo(Net):
    def chosen(self, x: Tensor, hidden: Tensor) -> Tensor:
        return hidden[: int((x[:, 0] > 0).sum())]


KINDS = [Net, ByNumbers, Attending, Joined, UpTo]


def kept() -> int:
    """How many of the rows that are counted have a positive first input."""
    x = torch.randn(ROWS, 8, generator=torch.Generator().manual_seed(0))
    return int((x[:, 0] > 0).sum())


@pytest.mark.parametrize("kind", KINDS)
def test_costs_are_those_of_the_input_given_at_every_width(kind: type[Net]) -> None:
    spec = read_model(kind(), f"{ROWS}x8", widths=True)
    assert spec.couplings is not None, spec.refusal
    rows = kept()
    assert 1 < rows < ROWS and rows != 7
    macs = spec.couplings.weight_macs
    grown = {n: w.size if w.fixed else 3 * w.size for n, w in spec.couplings.widths.items()}
    into = 28 if kind is Joined else 12
    twice = 2 if kind is Joined else 1
    for sizes, k in (({n: w.size for n, w in spec.couplings.widths.items()}, 1), (grown, 3)):
        assert macs["first.weight"].at(sizes) == twice * ROWS * 8 * 16 * k
        assert macs["third.weight"].at(sizes) == rows * into * 20 * k * k
        assert macs["last.weight"].at(sizes) == rows * 20 * 4 * k
        if kind is Attending:
            assert sum(p.at(sizes) for p in spec.couplings.product_macs.values()) == 2 * rows * rows * 12 * k


@pytest.mark.parametrize("kind", KINDS)
def test_a_wide_plan_is_applied_and_measured_as_planned(kind: type[Net]) -> None:
    torch.manual_seed(0)
    model = kind().eval()
    plan = ift.plan(read_model(model, f"{ROWS}x8", widths=True), "wide", "0.75")
    assert plan.multiplier == 2
    wide = apply(plan, model)
    report = measure_applied(plan, wide)
    assert report.passed, report.problems
    assert wide(torch.ones(ROWS, 8)).shape == (4,)
    assert wide.third.out_features == 40


class Mixed(Net):
    """What data decide enters a product whose cost is a sum."""

    def chosen(self, x: Tensor, hidden: Tensor) -> Tensor:
        both = torch.cat((hidden, self.first(x)), 1)[x[:, 0] > 0]
        return (both @ both.t()) @ hidden[x[:, 0] > 0]


def test_what_no_polynomial_gives_is_refused() -> None:
    spec = read_model(Mixed(), f"{ROWS}x8", widths=True)
    assert spec.couplings is None
    assert "data decide what matmul of the model costs" in spec.refusal
    with pytest.raises(IftplanError, match="Use parallel, factorized or doped, which keep the width"):
        ift.plan(spec, "wide", "0.75")
