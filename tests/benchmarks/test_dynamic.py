"""The command behind docs/concepts/dynamic.md: its rows are of the network and the selection that they name."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from torch import Tensor

from iftplan.models.dynamic.selection import parse_selection
from iftplan.nn.training.measures.activity import largest_error
from tests.support.programs import program

dynamic = program("dynamic")


def batch(seed: int) -> tuple[Tensor, Tensor]:
    drawn = torch.randint(256, (2, 17), generator=torch.Generator().manual_seed(seed))
    return drawn[:, :-1], drawn[:, 1:]


@pytest.fixture(scope="module")
def measured() -> object:
    torch.manual_seed(0)
    return dynamic.Measured(dynamic.relu_gpt(), [batch(0)], [batch(1)])


def test_a_row_has_the_columns_and_the_loss_of_its_selection(measured: object) -> None:
    assert isinstance(measured, dynamic.Measured)
    plain = measured.row("none", measured.plain)
    assert len(plain) == len(dynamic.COLUMNS)
    assert plain[-1] == "1.0000"
    errors = [measured.by_error(Fraction(part, 10)) for part in (0, 2, 5)]
    assert errors[0].loss == pytest.approx(measured.plain.loss, rel=1e-3)  # thresholds are of other text
    shares = [found.effective_share for found in errors]
    assert shares == sorted(shares, reverse=True)
    assert shares[2] < shares[1] < shares[0] <= measured.plain.effective_share
    halved = measured.on_test(parse_selection(f"teal:1/2@{dynamic.IN_BLOCKS}"))
    assert halved.layers[0].activation_ratio == Fraction(1, 2)
    assert halved.layers[-1].activation_ratio == 1  # the head is not in a block


def test_the_largest_error_is_found_by_bisection() -> None:
    found = largest_error(lambda error: float(error) ** 2, 0.3**2, steps=20)
    assert float(found) == pytest.approx(0.3, abs=1e-5)
    assert found <= Fraction(3, 10)
    assert largest_error(lambda _: 1.0, 0.5) == 0
