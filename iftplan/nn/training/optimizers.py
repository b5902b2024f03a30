"""Optimizers of a run: biases and norms do not decay."""

from __future__ import annotations

from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from iftplan.runs import OptimizerConfig


def optimizer_of(config: OptimizerConfig, model: nn.Module) -> Optimizer:
    """The optimizer, in two groups: weights of two dimensions or more decay, all else does not."""
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    if config.name == "sgd":
        nesterov = config.nesterov and config.momentum > 0
        return SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=nesterov)
    kind = Adam if config.name == "adam" else AdamW
    return kind(groups, lr=config.lr, betas=config.betas, eps=config.eps)


def set_rate_(optimizer: Optimizer, rate: float) -> None:
    """One learning rate for all groups."""
    for group in optimizer.param_groups:
        group["lr"] = rate
