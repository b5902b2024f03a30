"""Fingerprint of a model without its weights: names, classes and shapes."""

from __future__ import annotations

import json
from hashlib import sha256

from torch import nn


def fingerprint(model: nn.Module) -> str:
    """SHA-256 (hex) over module names, class names, parameter names and shapes.

    Device, dtype, values and training mode do not enter; which parameters are tied does, because a tied one
    is listed under its first name only.
    """
    document = {
        "modules": [[name, type(module).__qualname__] for name, module in model.named_modules()],
        "parameters": [[name, list(p.shape)] for name, p in model.named_parameters()],
    }
    return sha256(json.dumps(document, separators=(",", ":")).encode()).hexdigest()
