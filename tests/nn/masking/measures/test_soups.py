"""Means of masked models: vectors by hand, and refusals that say how far apart masks are."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from iftplan import nn
from iftplan.base.errors import InputError, StaleError
from iftplan.nn.training.soups import recompute_norms_


def state(values: list[float], mask: list[bool], count: int = 0) -> dict[str, Tensor]:
    return {
        "0.weight": torch.tensor([values]),
        "0.weight_mask": torch.tensor([mask]),
        "1.num_batches_tracked": torch.tensor(count),
    }


def test_the_mean_by_hand() -> None:
    kept = [True, False, True, True]
    found = nn.soup([state([1.0, 0.0, -4.0, 0.5], kept, 7), state([3.0, 0.0, 1.0, 0.0], kept, 9)])
    assert found["0.weight"].tolist() == [[2.0, 0.0, -1.5, 0.25]]
    assert found["0.weight_mask"].tolist() == [kept]
    assert found["1.num_batches_tracked"] == 7


def test_the_mean_is_rounded_once() -> None:
    """Three times 0.1 in float32 is not 0.3, but its mean is 0.1."""
    tenth = [{"weight": torch.full((2,), 0.1, dtype=torch.bfloat16)} for _ in range(3)]
    found = nn.soup(tenth)["weight"]
    assert found.dtype is torch.bfloat16
    assert torch.equal(found, tenth[0]["weight"])


def test_masks_that_differ_are_refused_with_their_distance() -> None:
    first = state([1.0, 1.0, 1.0, 0.0], [True, True, True, False])
    other = state([1.0, 0.0, 0.0, 1.0], [True, False, False, True])
    with pytest.raises(InputError, match=r"b and a do not share .*: 2 of the 3 weights .* \(66\.7%; most in 0\.weight, 2\), .* keep 4 weights"):  # fmt: skip
        nn.soup([first, other], ["a", "b"])


def test_a_mask_that_only_grows_is_another_mask() -> None:
    first = state([1.0, 0.0], [True, False])
    other = state([1.0, 1.0], [True, True])
    with pytest.raises(InputError, match="0 of the 1 weights"):
        nn.soup([first, other])


def test_other_networks_and_none_are_refused() -> None:
    with pytest.raises(
        StaleError, match=r"model 2 is another network than model 1: 0\.weight, 0\.weight_mask"
    ):
        nn.soup([state([1.0], [True]), state([1.0, 0.0], [True, False])])
    with pytest.raises(InputError, match="no models"):
        nn.soup([])


def test_statistics_are_the_mean_over_batches_by_hand() -> None:
    norm = torch.nn.BatchNorm1d(1)
    network = torch.nn.Sequential(norm, torch.nn.Dropout(0.5)).eval()
    norm.running_mean.fill_(100.0)
    seen = recompute_norms_(network, [torch.tensor([[0.0], [2.0]]), torch.tensor([[4.0], [8.0]])])
    assert (seen, norm.momentum, norm.training, network.training) == (4, 0.1, False, False)
    assert norm.running_mean.tolist() == [3.5]  # of 1 and 6
    assert norm.running_var.tolist() == [5.0]  # of 2 and 8


def test_networks_without_norms_look_at_no_input() -> None:
    assert recompute_norms_(torch.nn.Linear(2, 2), iter([torch.tensor([[float("nan")] * 3])])) == 0
