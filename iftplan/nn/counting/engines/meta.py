"""The default engine: exact, without memory, and faster than the forward pass it counts.

Two layers on the meta device. On top a TorchFunctionMode replaces the frequent functions by shape rules;
whatever has no rule runs for real, and the dispatch net below counts the operators it comes down to. A rule
never reaches the dispatcher, so nothing is counted twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

from iftplan.models.counting import CountTable
from iftplan.nn.counting.operators.attention_call import attention_call
from iftplan.nn.counting.operators.registry import OPERATORS, Operators
from iftplan.nn.counting.operators.whole_functions import is_taken_apart, summed_products
from iftplan.nn.counting.passes.data import Data
from iftplan.nn.counting.passes.dispatch import DatalessAnswers, DispatchNet
from iftplan.nn.counting.passes.ledger import Ledger, Names
from iftplan.nn.counting.passes.module_stack import module_scope
from iftplan.nn.counting.shape_rules.registry import CALLERS, RULES, SHAPE_ONLY
from iftplan.nn.meta.factories import FACTORIES, FactoriesOnMeta, with_device
from iftplan.nn.torch_internals import inside_transform, require, without_dispatch

_PLAIN = frozenset((Tensor, nn.Parameter))
_NO_KWARGS: Mapping[str, Any] = {}


class ShapeRules(TorchFunctionMode):
    """Answers frequent functions from their arguments' shapes alone; the rest, or all with data, goes down to the net."""

    def __init__(self, ledger: Ledger, net: DispatchNet) -> None:
        super().__init__()
        self.with_data = ledger.data is Data.GIVEN
        self.ledger = ledger
        self.net = net

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or _NO_KWARGS
        if func is scaled_dot_product_attention:
            self.ledger.attend(attention_call(*args, **kwargs))
        if func in FACTORIES and not self.with_data:
            kwargs = with_device(kwargs)
        if is_taken_apart(func):
            result = self._through_net(func, args, kwargs)
            if (whole := summed_products(func, args, kwargs, result)) is not None:
                name, macs, operands = whole
                self.ledger.contraction(name, macs, *operands)
            return result
        # Under vmap a tensor's shape lacks the mapped dimension, and a subclass may mean anything: only the
        # operators that arrive at the net are what really runs.
        if self.with_data or not _PLAIN.issuperset(types) or inside_transform():
            return self._through_net(func, args, kwargs)
        rule = RULES.get(func)
        if rule is not None:
            guard = without_dispatch()  # a rule's own empty tensors are not the model's work
            try:
                result = rule(self.ledger, *args, **kwargs)
            finally:
                del guard  # an exception would keep its frame, and with it this, alive
            if result is not NotImplemented:
                return result
        elif func in SHAPE_ONLY:
            guard = without_dispatch()
            try:
                result = func(*args, **kwargs)
            finally:
                del guard
            if not isinstance(result, Tensor) or result.layout is torch.strided:
                return result  # a view of a sparse tensor is for the net, which keeps count of its values
        return self._through_net(func, args, kwargs)

    def _through_net(self, func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        self.net.caller = CALLERS.get(func, "")
        try:
            return func(*args, **kwargs)
        finally:
            self.net.caller = ""


class MetaEngine:
    """Counts on the meta device, by rules and the net; a pass with data by the net alone."""

    name = "meta"

    def __init__(self, operators: Operators = OPERATORS) -> None:
        self.operators = operators

    def count(
        self, model: nn.Module, args: tuple[object, ...], kwargs: Mapping[str, object], data: Data
    ) -> CountTable:
        """Count of one forward pass in MACs, call by call.

        Args:
            model: set to eval mode by the caller.
            args: positional inputs of the pass.
            kwargs: keyword inputs of the pass.
            data: whether tensors have values, or what is assumed in their place.
        """
        require("counting")
        ledger = Ledger(Names(model), data=data)
        net = DispatchNet(ledger, self.operators)
        with module_scope(ledger), net, ShapeRules(ledger, net):
            model(*args, **kwargs)
        return ledger.table(self.name, _uncalled(model, ledger, args, kwargs))


class _Watch(DatalessAnswers):  # type: ignore[no-untyped-call]
    """Notes which parameters any operator reads."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__(ledger)
        self.seen: set[str | None] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        for arg in (*args, *(kwargs or {}).values()):
            for value in arg if isinstance(arg, list | tuple) else (arg,):
                self.seen.add(self.ledger.names.parameter(value))
        return super().__torch_dispatch__(func, types, args, kwargs)


def _uncalled(
    model: nn.Module, ledger: Ledger, args: tuple[object, ...], kwargs: Mapping[str, object]
) -> tuple[str, ...]:
    """Modules with parameters of their own that never ran and none of whose parameters was read."""
    names = ledger.names
    used = {weight for _, _, weight in ledger.entries}
    idle = {
        path: {names.parameter(p) for p in module._parameters.values()}
        for module, path in names.modules.items()
        if module not in ledger.ran and any(isinstance(p, Tensor) for p in module._parameters.values())
    }
    idle = {path: own for path, own in idle.items() if not own & used}
    if idle:  # rare: look again, at every operator's every argument
        watch = _Watch(Ledger(names, data=ledger.data))
        with watch, FactoriesOnMeta(ledger.data is not Data.GIVEN):
            model(*args, **kwargs)
        idle = {path: own for path, own in idle.items() if not own & watch.seen}
    return tuple(idle)
