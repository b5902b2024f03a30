"""Optimizers of a run: biases and norms do not decay."""

from __future__ import annotations

from collections.abc import Collection
from itertools import compress
from typing import Any, Final

from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from iftplan.nn.application.scales import parameter_groups
from iftplan.nn.masking.optimizer.adams import AdamS
from iftplan.nn.training.optimization.lamb import Lamb
from iftplan.plans.plan import Plan
from iftplan.runs.settings import OptimizerConfig

FUSED: Final = frozenset({"cpu", "cuda"})
"""Devices whose fused Adam is taken; on others, what PyTorch takes by itself.

On a CPU the plain kernel needs some ten times longer for the root of a second moment that is zero, as it is for
every weight off its mask.
"""


def optimizer_of(
    config: OptimizerConfig,
    plan: Plan,
    network: nn.Module,
    *,
    dense: bool,
    scaled: bool = False,
    folded: Collection[nn.Parameter] = (),
) -> Optimizer:
    """The optimizer; weights of two dimensions or more decay, all else does not.

    Args:
        config: which, and its settings.
        plan: what was applied; its parametrization, if it has one, sets learning rates apart.
        network: whose weights.
        dense: whether `network` is the plan's dense model, whose rates are all one.
        scaled: whether gradients are scaled (float16); a fused optimizer unscales them itself, too late to clip them.
        folded: weights that decay otherwise.
    """
    trained = [p for p in network.parameters() if p.requires_grad]
    rates = [{"params": trained}] if dense else parameter_groups(plan, network, config.lr)
    groups = [group for rate in rates for group in _by_decay(rate, config.weight_decay, set(folded))]
    groups = [part for group in groups for part in _by_mesh(group)]
    if config.name == "sgd":
        nesterov = config.nesterov and config.momentum > 0
        return SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=nesterov)
    if config.name == "adams":
        return AdamS(groups, lr=config.lr, betas=config.betas, eps=config.eps)
    if config.name == "lamb":
        return Lamb(groups, lr=config.lr, betas=config.betas, eps=config.eps)
    kind = Adam if config.name == "adam" else AdamW
    fused = not scaled and {p.device.type for p in trained} <= FUSED
    return kind(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=fused or None)


def _by_decay(group: dict[str, Any], decay: float, folded: set[nn.Parameter]) -> list[dict[str, Any]]:
    decays = [p.ndim >= 2 and p not in folded for p in group["params"]]
    parts = (
        {**group, "params": list(compress(group["params"], decays)), "weight_decay": decay},
        {
            **group,
            "params": [p for p, yes in zip(group["params"], decays, strict=True) if not yes],
            "weight_decay": 0.0,
        },
    )
    return [part for part in parts if part["params"]]


def _by_mesh(group: dict[str, Any]) -> list[dict[str, Any]]:
    """The group once for each mesh that its parameters are spread over: one operator cannot take two."""
    parts: dict[Any, list[nn.Parameter]] = {}
    for parameter in group["params"]:
        parts.setdefault(getattr(parameter, "device_mesh", None), []).append(parameter)
    return [{**group, "params": part} for part in parts.values()]


def set_rate_(optimizer: Optimizer, rate: float) -> None:
    """The learning rate for all groups, each times its own multiplier where a parametrization gives one."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("lr_multiplier", 1.0)
