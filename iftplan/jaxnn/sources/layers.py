"""Modules of Flax and Equinox by their paths: which class computes with a weight, and whether it is a plain layer."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Final

import jax

_HOMES: Final = ("flax.linen.", "flax.nnx.", "equinox.")
_NAMES: Final = ("Dense", "DenseGeneral", "Linear", "LinearGeneral", "Conv", "ConvTranspose")


def is_plain(module: object) -> bool:
    """Whether a module computes with its weight alone, as a linear layer or a convolution of Flax or Equinox does."""
    return any(
        kind.__name__.rstrip("123d") in _NAMES and f"{kind.__module__}.".startswith(_HOMES)
        for kind in type(module).__mro__
    )


def label(module: object) -> str:
    """Name of a module's class; "" for a plain layer."""
    return "" if is_plain(module) else type(module).__name__


def nnx_classes(model: object) -> dict[str, str]:
    """Path → label of each module inside one of `flax.nnx`; "" is the path of the model."""
    nnx = sys.modules["flax.nnx"]
    return {
        ".".join(map(str, path)): label(module)
        for path, module in nnx.iter_graph(model)
        if isinstance(module, nnx.Module)
    }


def pytree_classes(model: object) -> dict[str, str]:
    """The same of a callable that JAX takes apart; what holds no plain layer is not listed but for the model."""
    found = jax.tree_util.tree_flatten_with_path(model, is_leaf=is_plain)[0]
    plain = {
        str(jax.tree_util.keystr(tuple(path), simple=True, separator=".")): ""
        for path, leaf in found
        if is_plain(leaf)
    }
    return {"": label(model), **plain}


def linen_watch(classes: dict[str, str]) -> AbstractContextManager[Any]:
    """Context in which the label of every `flax.linen` module that is called is written down by its path.

    Args:
        classes: where it is written.
    """
    linen = sys.modules["flax.linen"]

    def watch(call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        classes.setdefault(".".join(context.module.path), label(context.module))
        return call(*args, **kwargs)

    watching: AbstractContextManager[Any] = linen.intercept_methods(watch)
    return watching
