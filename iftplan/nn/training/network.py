"""The network of a run, from the plan and the run's settings."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from iftplan.nn.export.finalize import densify_
from iftplan.nn.sources import build
from iftplan.nn.training.initial_weights import dense_network, sparse_network
from iftplan.plans.plan import Plan
from iftplan.runs.methods import METHODS
from iftplan.runs.settings import RunConfig

_NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm)


def network_of(
    config: RunConfig, plan: Plan, source: str, resize_: Callable[[nn.Module], object] | None = None
) -> nn.Module:
    """Network of the plan, or the plan's dense model if the method is "dense"; weights follow from the seed.

    It has no masks where the method is "densified".

    Args:
        config: the run.
        plan: what to build.
        source: of the dense model.
        resize_: gives the dense model other widths before its weights are drawn.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(config.seed)
        dense = build(source, device="cpu")
        if resize_ is not None:
            resize_(dense)
    scheme, seed = config.plan.init, config.seed
    if config.method.name == "dense":
        network = dense_network(plan, dense, scheme, seed)
    else:
        start = METHODS[config.method.name].starts_dense
        network = sparse_network(
            plan, dense, scheme, seed, dense_start=start, nonlinear=config.plan.nonlinear
        )
        if config.method.name == "densified":
            densify_(network)
    if config.training.zero_init_residual:
        zero_last_norms_(network)
    if _channels_last(config, network):
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network.train()


def _channels_last(config: RunConfig, network: nn.Module) -> bool:
    if config.training.channels_last is None:
        return is_convolutional(network) and config.training.strategy != "fsdp"  # which wants plain strides
    return config.training.channels_last


def is_convolutional(network: nn.Module) -> bool:
    """Whether a network has convolutions over images."""
    return any(isinstance(module, nn.Conv2d) for module in network.modules())


@torch.no_grad()
def zero_last_norms_(network: nn.Module) -> None:
    """γ = 0 in the last norm of every residual branch, so that blocks begin as identities.

    A residual branch is told from its name in the libraries whose models are known: torchvision's and timm's
    `bn2` and `bn3` are left to their own switches; in transformers' ResNets a block's `layer` is its branch.
    """
    for module in network.modules():
        branch = getattr(module, "layer", None)
        if isinstance(branch, nn.Sequential) and hasattr(module, "shortcut"):
            norms = [x for x in branch.modules() if isinstance(x, _NORMS) and x.weight is not None]
            if norms:
                nn.init.zeros_(norms[-1].weight)
