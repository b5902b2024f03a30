"""How a model without data was built, so that it can be built again with data."""

from __future__ import annotations

from collections.abc import Callable
from weakref import WeakKeyDictionary

from torch import nn

_ORIGINS: WeakKeyDictionary[nn.Module, Callable[[], nn.Module]] = WeakKeyDictionary()


def remember(model: nn.Module, build: Callable[[], nn.Module]) -> None:
    """Note that `build` makes the same model on the CPU."""
    _ORIGINS[model] = build


def origin(model: nn.Module) -> Callable[[], nn.Module] | None:
    """The function that makes the same model on the CPU; None if that is unknown."""
    return _ORIGINS.get(model)


def also_changed(model: nn.Module, change: Callable[[nn.Module], nn.Module]) -> None:
    """Note that `model` was changed in place, as `change` would change what its origin makes."""
    build = origin(model)
    if build is not None:
        remember(model, lambda: change(build()))
