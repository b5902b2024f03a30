"""Update sparsity between two states: numbers by hand, masks, and what is refused."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from torch import Tensor

from iftplan import nn
from iftplan.base.errors import InputError, StaleError
from iftplan.plans.audit.updates import updates_document


def states() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    before = {
        "0.weight": torch.tensor([[3.0, 0.0], [4.0, 0.0]]),
        "0.weight_mask": torch.tensor([[True, False], [True, False]]),
        "1.weight": torch.tensor([1.0, 1.0]),
        "1.running_mean": torch.tensor([0.0, 0.0]),
        "1.num_batches_tracked": torch.tensor(1),
    }
    after = {name: value.clone() for name, value in before.items()}
    after["0.weight"] = torch.tensor([[0.0, 0.5], [4.0, 0.0]])  # one weight moved to another place
    after["0.weight_mask"] = torch.tensor([[False, True], [True, False]])
    after["1.weight"] = torch.tensor([1.0, 1.0 + 2**-20])
    after["1.running_mean"] = torch.tensor([9.0, 9.0])
    return before, after


def test_weights_that_moved_by_hand() -> None:
    found = nn.weight_updates(*states(), [0.0, 1e-5, 1.0])
    masked, norm = found.layers
    assert (masked.name, masked.weights, masked.moved) == ("0.weight", 3, (2, 2, 1))
    assert (norm.name, norm.weights, norm.moved) == ("1.weight", 2, (1, 0, 0))
    assert (found.total.weights, found.total.moved) == (5, (3, 2, 1))
    assert found.total.sparsity(0) == Fraction(2, 5)
    assert masked.relative_change == pytest.approx((9.25 / 25) ** 0.5)


def test_a_weight_without_a_mask_on_one_side_counts_whole() -> None:
    before, after = states()
    del after["0.weight_mask"]
    assert nn.weight_updates(before, after).layers[0].weights == 4


def test_the_document_has_a_row_for_each_weight_and_threshold() -> None:
    found = nn.weight_updates(*states(), [0.0, 1.0], names=("a", "b"))
    document = updates_document(found)
    assert [(row["name"], row["threshold"]) for row in document["updates"]] == [
        ("0.weight", 0.0), ("0.weight", 1.0), ("1.weight", 0.0), ("1.weight", 1.0),
    ]  # fmt: skip
    assert document["total"][0]["update_sparsity_exact"] == "2/5"
    assert document["total"][0]["update_sparsity"] == 0.4
    assert "update sparsity 0.4000 at |Δθ| > 0" in str(found)


def test_what_is_not_a_number_has_moved() -> None:
    found = nn.weight_updates({"w": torch.tensor([1.0, 1.0])}, {"w": torch.tensor([float("nan"), 1.0])})
    assert found.total.moved == (1, 1)


def test_weights_that_were_zero_have_no_relative_change() -> None:
    found = nn.weight_updates({"w": torch.zeros(2)}, {"w": torch.ones(2)})
    assert found.total.relative_change is None
    assert str(found)


def test_other_networks_and_thresholds_are_refused() -> None:
    before, after = states()
    with pytest.raises(StaleError, match=r"head is another network than base: 2\.weight differs"):
        nn.weight_updates(before, {**after, "2.weight": torch.ones(1)}, names=("base", "head"))
    for wrong in ([], [-1.0]):
        with pytest.raises(InputError, match="not negative"):
            nn.weight_updates(before, after, wrong)


def test_tied_weights_move_once() -> None:
    def state(value: float) -> dict[str, torch.Tensor]:
        weight = torch.full((4, 8), value)
        return {"embedding.weight": weight, "head.weight": weight, "bias": torch.zeros(2)}

    report = nn.weight_updates(state(1.0), state(2.0))
    assert [layer.name for layer in report.layers] == ["embedding.weight", "bias"]
    assert report.total.weights == 34
