"""At which scale the layers that are kept dense begin, in the dense control and in every family."""

from __future__ import annotations

from math import log, sqrt

import pytest
import torch
from torch import nn

import iftplan as ift
from iftplan.nn import apply, build
from iftplan.nn.training.initial_weights import dense_network, sparse_network
from iftplan.plans.plan import Plan

FAMILIES = ("wide", "parallel", "factorized", "doped", "none")


def planned(source: str, inputs: str, family: str) -> Plan:
    spec = ift.read_model(build(source), inputs, widths=family == "wide")
    return ift.plan(spec, None if family == "none" else family, "3/4")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_classifier_begins_where_pytorch_begins_it(family: str) -> None:
    """U(±1/√fan_in) of PyTorch has the deviation 1/√(3·fan_in): .1021 at 32 inputs, and not Kaiming's √(2/10) = .447."""
    plan = planned("zoo:digits-cnn", "8x1x8x8", family)
    for network in (
        dense_network(plan, build("zoo:digits-cnn", device="cpu"), "kaiming", 0),
        sparse_network(plan, build("zoo:digits-cnn", device="cpu"), "kaiming", 0, dense_start=False),
    ):
        weight = network[11].weight
        expected = 1 / sqrt(3 * weight.shape[1])
        assert weight.std().item() == pytest.approx(expected, rel=0.2)
        network.train()
        loss = nn.functional.cross_entropy(network(torch.randn(64, 1, 8, 8)), torch.arange(64) % 10)
        assert loss.item() == pytest.approx(log(10), rel=0.12)  # that of guessing among ten


def test_resnet18_begins_at_the_loss_of_guessing_among_100_classes() -> None:
    """The reference code of arXiv 2303.11525 leaves the classifier's deviation at 1/√(3·512) = .0255."""
    plan = planned("zoo:resnet18-cifar", "1x3x32x32", "parallel")
    classifier = dense_network(plan, build("zoo:resnet18-cifar", device="cpu"), "kaiming", 0).classifier[1]
    assert classifier.weight.std().item() == pytest.approx(0.0255, rel=0.02)
    assert log(100) < 4.69  # 100 classes: 4.605 for equal logits; .141 gave 5.69


def test_a_resized_layer_that_is_kept_dense_gives_outputs_of_the_same_size() -> None:
    torch.manual_seed(0)
    dense = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 64))
    with torch.no_grad():
        dense[4].weight.normal_(0, 0.3)
    plan = ift.plan(ift.read_model(dense, "2x64", widths=True), "wide", "3/4")
    applied = apply(plan, dense)
    assert applied[4].weight.shape == (64, 512)
    # twice as many inputs: 0.3/√2; n normal values give it to 1/√(2n)
    assert applied[4].weight.std().item() == pytest.approx(0.3 / sqrt(2), rel=4 / sqrt(2 * 64 * 512))
    assert torch.equal(apply(plan, dense).get_parameter("4.weight"), applied.get_parameter("4.weight"))


def test_a_layer_that_begins_at_zero_stays_there() -> None:
    dense = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 8))
    nn.init.zeros_(dense.get_parameter("4.weight"))
    plan = ift.plan(ift.read_model(dense, "2x16", widths=True), "wide", "3/4")
    assert not apply(plan, dense)[4].weight.any()
