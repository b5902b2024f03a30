"""Images and labels mixed in pairs: by hand, the same on several processes, and a loss that mixes alike."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy

from iftplan.nn.training.data.mixing import mixed, mixing_weight
from iftplan.nn.training.measures.evaluation import loss_of


def test_pairs_by_hand() -> None:
    inputs, targets = mixed((torch.tensor([[0.0], [1.0], [2.0], [3.0]]), torch.tensor([0, 1, 2, 0])), 3, 0.75)
    assert inputs.flatten().tolist() == [0.5, 1.5, 1.5, 2.5]
    assert targets.tolist() == [[0.75, 0, 0.25], [0.25, 0.75, 0], [0.25, 0, 0.75], [0.75, 0.25, 0]]


@pytest.mark.parametrize("world", [1, 2, 4])
def test_the_shares_of_all_processes_are_the_batch_of_one(world: int) -> None:
    inputs, labels = torch.randn(8, 3, 2), torch.arange(8) % 5
    whole = mixed((inputs, labels), 5, 0.3)
    for rank in range(world):
        share = mixed((inputs[rank::world], labels[rank::world]), 5, 0.3)
        assert all(torch.equal(one, all_[rank::world]) for one, all_ in zip(share, whole, strict=True))


def test_the_loss_is_the_mean_of_both_labels_losses() -> None:
    """Two more outputs than there are classes, and with smoothing, which is over all outputs."""
    logits, labels = torch.randn(6, 7), torch.tensor([0, 1, 2, 3, 4, 0])
    _, targets = mixed((torch.randn(6, 2), labels), 5, 0.8)
    for smoothing in (0.0, 0.1):
        losses = [cross_entropy(logits, x, label_smoothing=smoothing) for x in (labels, labels.roll(3))]
        torch.testing.assert_close(loss_of(logits, targets, smoothing), 0.8 * losses[0] + 0.2 * losses[1])


def test_weights_follow_from_seed_and_step_and_are_of_the_beta_distribution() -> None:
    assert (
        mixing_weight(0.2, 1, 5)
        == mixing_weight(0.2, 1, 5)
        != mixing_weight(0.2, 1, 6)
        != mixing_weight(0.2, 2, 6)
    )
    drawn = torch.tensor([mixing_weight(0.2, 0, step) for step in range(4000)])
    # Beta(α, α) has the mean 1/2 and the variance 1 / (4·(2α + 1)); six standard errors
    assert drawn.mean().item() == pytest.approx(0.5, abs=6 * 0.42 / 63)
    assert drawn.var().item() == pytest.approx(1 / (4 * 1.4), abs=0.02)
