"""The network of a run: what its settings put inside the members."""

from __future__ import annotations

from dataclasses import replace

import pytest
from torch import nn

import iftplan as ift
from iftplan.nn.layers.branches import Factorized
from iftplan.nn.training.network import network_of
from iftplan.runs.settings import MethodConfig, PlanConfig, RunConfig

DIGITS = "zoo:digits-cnn"


@pytest.mark.parametrize(("nonlinear", "inside"), [(True, {nn.BatchNorm2d, nn.ReLU}), (False, set())])
def test_members_have_an_activation_inside_unless_asked_not_to(
    nonlinear: bool, inside: set[type[nn.Module]]
) -> None:
    config = RunConfig(plan=PlanConfig(nonlinear=nonlinear), method=MethodConfig("densified"))
    plan = ift.plan(ift.read_model(DIGITS), "lowrank", "3/4")
    network = network_of(config, plan, DIGITS)
    members = [module for module in network.modules() if isinstance(module, Factorized)]
    assert members
    for member in members:
        kinds = {type(module) for module in member.nonlinearity.modules()}
        assert kinds - {nn.Sequential, nn.Identity} == inside
    dense = network_of(replace(config, method=MethodConfig("dense")), plan, DIGITS)
    assert {type(x) for x in dense.modules()} >= {nn.BatchNorm2d, nn.ReLU}
