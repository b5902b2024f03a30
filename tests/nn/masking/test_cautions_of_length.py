"""Warnings about algorithms whose masks change never, once, or not again, in a run of a known length."""

from __future__ import annotations

import warnings

import pytest
import torch

from iftplan import nn


def network() -> torch.nn.Module:
    return nn.sparsify(
        torch.nn.Sequential(torch.nn.Linear(16, 16)), "3/4", keep_dense="none", dense_start=True
    )


def told(algorithm: nn.Algorithm, steps: int) -> list[str]:
    net = network()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        nn.Masking(net, torch.optim.SGD(net.parameters(), lr=0.1), algorithm, steps=steps)
    return [str(warning.message) for warning in caught]


@pytest.mark.parametrize("algorithm", [nn.Gradual(), nn.GraNet()])
def test_what_prunes_once_at_its_end_is_not_said_to_change_nothing(algorithm: nn.Algorithm) -> None:
    assert not any("never change" in text for text in told(algorithm, 20))


def test_rigl_without_an_update_is_still_told() -> None:
    assert any("never change" in text for text in told(nn.RigL(), 20))


def test_top_kast_that_ends_before_its_second_choice_is_told() -> None:
    assert any("stay those of the start" in text for text in told(nn.TopKAST(), 60))
    assert told(nn.TopKAST(), 101) == []


@pytest.mark.parametrize(
    "algorithm",
    [
        *(nn.Gradual(end=1.0), nn.GraNet(end=1.0), nn.Iterative(end=1000), nn.MaskDecay(end=1000)),
        *(nn.Force(rounds=1000), nn.CAST(end=2000)),
    ],
)
def test_pruning_that_never_arrives_is_told(algorithm: nn.Algorithm) -> None:
    """The last step of a thousand is number 999, and the counts of the plan come with number 1000."""
    assert any("the plan's sparsity is never reached" in text for text in told(algorithm, 1000))


def test_a_decay_that_ends_with_the_run_as_in_its_paper_is_not() -> None:
    assert told(nn.CAST(), 1000) == told(nn.Force(), 1000) == []


def test_pruning_that_arrives_is_not() -> None:
    assert told(nn.Iterative(end=750), 1000) == told(nn.Gradual(end=0.75), 1000) == []
