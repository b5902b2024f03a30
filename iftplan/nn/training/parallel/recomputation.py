"""Activation checkpointing: what blocks compute is computed again in the backward pass, and not kept until then."""

from __future__ import annotations

from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint


def recompute_(model: nn.Module) -> nn.Module:
    """Keep of each repeated block only its inputs between the passes, in place; names of parameters stay.

    Repeated blocks are the members of lists of modules, such as a transformer's; those within others are left to them.
    """
    inside: set[nn.Module] = set()
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and module not in inside:
            for block in module:
                inside.update(block.modules())
                block.forward = partial(checkpoint, block.forward, use_reentrant=False)
    return model
