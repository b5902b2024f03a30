"""Calls before and after an optimizer's step, for the lifetime of the object that asks for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakMethod, finalize

from torch.optim import Optimizer

from iftplan.base.errors import InputError
from iftplan.nn.torch_internals import step_hooks


class Hook:
    """A method that an optimizer calls; it does not keep its object alive."""

    def __init__(self, method: Callable[[], None]) -> None:
        self._method = WeakMethod(method)

    def __call__(self, *_: Any) -> None:
        """Call the method, if its object is still there."""
        method = self._method()
        if method is not None:
            method()


def attach(
    owner: object, optimizer: Optimizer, before: Callable[[], None], after: Callable[[], None]
) -> finalize[Any, Any]:
    """Function that ends the calls of `owner`'s methods before and after every step, which begin here.

    Args:
        owner: whose end detaches the hooks too.
        optimizer: torch's own.
        before: runs before every step.
        after: runs after every step.

    Raises:
        InputError: another object has its methods there: two would change the same masks.
    """
    if any(isinstance(hook, Hook) for hook in step_hooks(optimizer).values()):
        raise InputError(
            f"this {type(optimizer).__name__} already has a Masking; release() that one first, or continue to use "
            "it."
        )
    first = optimizer.register_step_pre_hook(Hook(before))
    second = optimizer.register_step_post_hook(Hook(after))
    return finalize(owner, _remove, first, second)


def _remove(*handles: Any) -> None:
    for handle in handles:
        handle.remove()
