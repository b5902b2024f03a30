"""The input of one call of a module, by position or by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from inspect import signature
from typing import Any

from torch import nn


def called_input(module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """First input of one call of a module; None where that was not given.

    Args:
        module: that is called.
        args: the call's inputs by position.
        kwargs: those by name.

    Example:
        >>> called_input(nn.Linear(2, 3), (), {"input": 5})
        5
    """
    if args:
        return args[0]
    return kwargs.get(next(iter(signature(module.forward).parameters), ""))
