"""The conditions under which a model is counted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def counting_conditions(model: nn.Module) -> Iterator[None]:
    """Eval mode, no gradients, and no fused fast path that would hide a layer's products."""
    training = [module for module in model.modules() if module.training]
    fastpath = torch.backends.mha.get_fastpath_enabled()
    for module in training:
        module.training = False
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fastpath)
        for module in training:
            module.training = True
