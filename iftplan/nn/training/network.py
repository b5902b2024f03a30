"""The network of a run, from the plan and the run's settings."""

from __future__ import annotations

import torch
from torch import nn

from iftplan.nn.application import apply
from iftplan.nn.sources import build
from iftplan.plans import Plan
from iftplan.runs import RunConfig

_NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm)
_STARTS_DENSE = ("gradual", "snip")


def network_of(config: RunConfig, plan: Plan, source: str) -> nn.Module:
    """The plan made real, or the plan's dense model where the method is "dense"; weights follow from the seed.

    Args:
        config: the run.
        plan: what to build.
        source: of the dense model.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(config.seed)
        dense = build(source, device="cpu")
    network = dense
    if config.method.name != "dense":
        init = None if config.plan.init == "model" else config.plan.init
        start = config.method.name in _STARTS_DENSE
        network = apply(plan, dense, seed=config.seed, init=init, dense_start=start)
    if config.training.zero_init_residual:
        zero_last_norms_(network)
    if is_convolutional(network) if config.training.channels_last is None else config.training.channels_last:
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network.train()


def is_convolutional(network: nn.Module) -> bool:
    """Whether it has convolutions over images."""
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
