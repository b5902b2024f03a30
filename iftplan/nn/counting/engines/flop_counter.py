"""PyTorch's FlopCounterMode as an independent engine: its own formulas, at its own place in the dispatcher.

It counts 2 FLOPs per MAC. Operators for which it has no formula (and silently counts 0) are counted with ours,
and the table says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from iftplan.base.errors import MeasureError
from iftplan.models.counting import CountTable
from iftplan.nn.counting.operators.registry import OPERATORS, Operator, Operators, may_contract
from iftplan.nn.counting.operators.whole_functions import summed_products
from iftplan.nn.counting.passes.data import Data
from iftplan.nn.counting.passes.dispatch import DatalessAnswers, refuse_mixed_dtypes, to_shapes
from iftplan.nn.counting.passes.ledger import Ledger, Names
from iftplan.nn.counting.passes.module_stack import module_scope
from iftplan.nn.meta.factories import FactoriesOnMeta


class FlopCounterEngine:
    """Engine that counts with `torch.utils.flop_counter` and formulas of ours."""

    name = "flop_counter"

    def __init__(self, operators: Operators = OPERATORS) -> None:
        self.operators = operators

    def count(
        self, model: nn.Module, args: tuple[object, ...], kwargs: Mapping[str, object], data: Data
    ) -> CountTable:
        """Count of one forward pass by torch's `FlopCounterMode`, in MACs (its FLOPs halved).

        Args:
            model: set to eval mode by the caller.
            args: positional inputs of the pass.
            kwargs: keyword inputs of the pass.
            data: whether tensors have values, or what is assumed in their place.

        Raises:
            MeasureError: FlopCounterMode's own total is not twice what its formulas reported call by call.
        """
        ledger = Ledger(Names(model), data=data)
        mapping = _mapping(ledger, self.operators)
        counter = FlopCounterMode(display=False, custom_mapping=mapping)
        unknown, whole = _NoteUnknown(ledger, frozenset(mapping)), _Whole(ledger, counter)
        with module_scope(ledger), unknown, counter, whole:
            model(*args, **kwargs)
        table = ledger.table(self.name, ())
        if counter.get_total_flops() != 2 * table.macs:
            raise MeasureError(
                f"FlopCounterMode's total of {counter.get_total_flops()} FLOPs is not twice the "
                f"{table.macs} MACs that its formulas gave call by call."
            )
        return table


class _Whole(FactoriesOnMeta):
    """Adds what FlopCounterMode takes apart into elementwise work."""

    def __init__(self, ledger: Ledger, counter: FlopCounterMode) -> None:
        super().__init__(ledger.data is not Data.GIVEN)
        self.ledger = ledger
        self.counter = counter

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = super().__torch_function__(func, types, args, kwargs)
        if (whole := summed_products(func, args, kwargs or {}, result)) is not None:
            name, macs, operands = whole
            self.ledger.contraction(name, macs, *operands)
            self.counter.flop_counts["Global"][name] += 2 * macs
            self.ledger.assume(
                f"torch's FlopCounterMode has no formula for {name}; the formula of iftplan was used"
            )
        return result


class _NoteUnknown(DatalessAnswers):  # type: ignore[no-untyped-call]
    """Notes operators that nobody has a formula for; FlopCounterMode passes them over in silence."""

    def __init__(self, ledger: Ledger, counted: frozenset[Any]) -> None:
        super().__init__(ledger)
        self.counted = counted

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func._overloadpacket not in self.counted and may_contract(func._schema.name):
            self.ledger.unknown[func._schema.name] += 1
        return super().__torch_dispatch__(func, types, args, kwargs)


def _mapping(ledger: Ledger, operators: Operators) -> dict[Any, Callable[..., int]]:
    """Each of torch's formulas, and ours where it has none, made to write down what it says."""
    known = {packet: _recorded(ledger, packet, formula) for packet, formula in flop_registry.items()}
    return known | {
        packet: _supplied(ledger, name, operator)
        for name, operator in operators.items()
        if (packet := _packet(name)) is not None and packet not in flop_registry
    }


def _packet(name: str) -> Any:
    namespace, _, operator = name.partition("::")
    return getattr(getattr(torch.ops, namespace), operator, None)


def _recorded(ledger: Ledger, packet: Any, formula: Callable[..., int]) -> Callable[..., int]:
    name = getattr(packet, "_qualified_op_name", "")
    operator = OPERATORS.get(name)
    sparse = _supplied(ledger, name, operator, "treats a sparse operand as dense in") if operator else None

    def raw(*args: Any, out_val: Any = None, **kwargs: Any) -> int:
        if sparse and any(isinstance(a, Tensor) and a.layout is not torch.strided for a in args):
            return sparse(*args, out_val=out_val, **kwargs)
        flops = formula(*args, out_val=out_val, **kwargs)
        if flops % 2:
            raise MeasureError(
                f"FlopCounterMode counts {flops} FLOPs for {packet}, not a whole number of MACs."
            )
        operands = [args[k] for k in operator.operands if k < len(args)] if operator else args
        refuse_mixed_dtypes(str(packet), operands)
        ledger.contraction(operator.name if operator else str(packet), flops // 2, *operands)
        return flops

    raw._get_raw = True  # type: ignore[attr-defined]  # torch hands over tensors instead of shapes
    return raw


def _supplied(
    ledger: Ledger, name: str, operator: Operator, why: str = "has no formula for"
) -> Callable[..., int]:
    def raw(*args: Any, out_val: Any = None, **kwargs: Any) -> int:
        first = out_val[0] if isinstance(out_val, tuple | list) else out_val
        macs = operator.cost([to_shapes(a) for a in args], to_shapes(first))
        if macs is None:
            ledger.unknown[name] += 1
            return 0
        operands = [args[k] for k in operator.operands if k < len(args)]
        if OPERATORS.get(name) is operator:
            refuse_mixed_dtypes(operator.name, operands)
        ledger.contraction(operator.name, macs, *operands)
        ledger.assume(f"torch's FlopCounterMode {why} {name}; the formula of iftplan was used")
        return 2 * macs

    raw._get_raw = True  # type: ignore[attr-defined]
    return raw
