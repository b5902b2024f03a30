"""Which module is running: a stack that torch's own module call keeps up to date."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList

from iftplan.nn.counting.passes.ledger import Ledger


@contextmanager
def module_scope(ledger: Ledger) -> Iterator[None]:
    """Keep `ledger.stack` and `ledger.ran` while the model runs.

    nn.Module.__call__ is wrapped for the time of one pass, as torch.fx does when it traces: hooks on every
    module would send each call down torch's slow path and could be left behind by an exception.
    """
    call = nn.Module.__call__
    modules, stack, ran = ledger.names.modules, ledger.stack, ledger.ran

    def scoped(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if module not in modules:
            return call(module, *args, **kwargs)
        ran.add(module)
        stack.append(module)
        try:
            result = call(module, *args, **kwargs)
        finally:
            stack.pop()
        if isinstance(module, ParametrizationList) and isinstance(result, Tensor):
            _derive(ledger, module, result)
        return result

    nn.Module.__call__ = scoped  # type: ignore[method-assign]
    try:
        yield
    finally:
        nn.Module.__call__ = call  # type: ignore[method-assign]


def _derive(ledger: Ledger, module: nn.Module, weight: Tensor) -> None:
    """A weight that a parametrization computed stands for the original of its own shape."""
    for original in module._parameters.values():
        name = ledger.names.parameter(original)
        if name is not None and original is not None and original.shape == weight.shape:
            ledger.names.derive(weight, name)
            return
