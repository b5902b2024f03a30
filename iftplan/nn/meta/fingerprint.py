"""Fingerprint of a model without its weights: names, classes and shapes."""

from __future__ import annotations

import json
from hashlib import sha256

from torch import nn
from torch.nn.parameter import is_lazy

from iftplan.base.errors import InputError


def fingerprint(model: nn.Module) -> str:
    """SHA-256 (hex) over module names, class names, parameter names and shapes.

    Device, dtype, values and training mode do not enter; which parameters are tied does, because a tied one
    is listed under its first name only.

    Raises:
        InputError: it has lazy parameters, which have no shape yet.
    """
    if lazy := next((name for name, p in model.named_parameters() if is_lazy(p)), None):
        raise InputError(
            f"{lazy} of {type(model).__name__} is lazy and has no shape before the network has run; call it once, on any input of the "
            "right shape."
        )
    document = {
        "modules": [[name, type(module).__qualname__] for name, module in model.named_modules()],
        "parameters": [[name, list(p.shape)] for name, p in model.named_parameters()],
    }
    return sha256(json.dumps(document, separators=(",", ":")).encode()).hexdigest()
