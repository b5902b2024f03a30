"""Counting in torch's dispatcher: every operator that reaches it, by the table of formulas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import Any

import torch
from torch import Tensor

from iftplan.nn.counting.operators.registry import OPERATORS, Operators, may_contract
from iftplan.nn.counting.passes.ledger import Ledger
from iftplan.nn.counting.passes.operator_shapes import operator_shape
from iftplan.nn.meta.sparse_tensors import PRODUCTS, correct_result, sparse_product, sparse_shape
from iftplan.nn.meta.tensors import empty
from iftplan.nn.torch_internals import TorchDispatchMode, without_torch_function

_ITEM = torch.ops.aten._local_scalar_dense.default
_GROUPED_MM = torch.ops.aten._grouped_mm.default
ASSUMED_GROUPED_MM = (
    "torch's meta kernel of _grouped_mm accepts only bfloat16, so iftplan derived the output's shape "
    "from the operands and assumed that each row goes to exactly one expert"
)


def to_shapes(value: Any) -> Any:
    """A call's argument as a value: a tensor is its shape, a list of tensors the list of their shapes."""
    if isinstance(value, Tensor):
        return tuple(value.shape) if value.layout is torch.strided else sparse_shape(value)
    if isinstance(value, list | tuple):
        return [to_shapes(v) for v in value]
    return value


class DatalessAnswers(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Answers for values that meta tensors do not have; everything else runs as it is."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.ledger = ledger

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is _ITEM and args[0].is_meta:
            return self.ledger.item(args[0].dtype)
        if func is _GROUPED_MM and args[0].is_meta and args[0].dtype is not torch.bfloat16:
            self.ledger.assume(ASSUMED_GROUPED_MM)
            return grouped_mm(*args, **(kwargs or {}))
        return without_data(func, args, kwargs)


def without_data(func: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None) -> Any:
    """Result of an operator, also where torch's own has no answer for tensors without data.

    Args:
        func: an overload of the dispatcher's.
        args: its arguments.
        kwargs: the same by name.
    """
    if func._schema.name in PRODUCTS and (product := sparse_product(func._schema.name, args)) is not None:
        return product
    if (known := operator_shape(func, args, kwargs)) is not None:
        return known
    result = func(*args, **(kwargs or {}))
    if isinstance(result, Tensor) and result.layout is not torch.strided and result.is_meta:
        return correct_result(func._schema.name, args, result)
    return result


def grouped_mm(
    a: Tensor, b: Tensor, offs: Tensor | None = None, bias: Tensor | None = None, out_dtype: Any = None
) -> Tensor:
    """Shape of a product of groups: two matrices cut along K give one product per group, else groups are rows.

    Args:
        a: rows, of all groups one after the other or a stack.
        b: matrices, likewise.
        offs: where groups end.
        bias: adds no shape.
        out_dtype: of the product; None for that of `a`.
    """
    rows = a.shape[:-1] if a.dim() >= b.dim() else a.shape[-2:-1]
    if a.dim() == b.dim() == 2 and offs is not None:
        rows = torch.Size((offs.numel(), *rows))
    elif a.dim() > b.dim():
        rows = a.shape[-2:-1]
    return empty((*rows, b.shape[-1]), out_dtype or a.dtype)


class DispatchNet(DatalessAnswers):  # type: ignore[no-untyped-call]
    """Counts every operator that reaches the dispatcher.

    Attributes:
        caller: plain name of the public function that led here ("linear" for the addmm inside it); empty
            if the operator was called by itself.
    """

    def __init__(self, ledger: Ledger, operators: Operators = OPERATORS) -> None:
        super().__init__(ledger)
        self.operators = operators
        self.caller = ""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        # A kernel written in Python may call torch functions of its own; they are this operator's work,
        # not the model's, so neither the shape rules nor this net may see them.
        with without_torch_function():
            result = super().__torch_dispatch__(func, types, args, kwargs)
        self._count(func, args, result)
        return result

    def _count(self, func: Any, args: Sequence[Any], result: Any) -> None:
        first = result[0] if isinstance(result, tuple | list) and result else result
        name = func._schema.name
        operator = self.operators.get(name)
        macs = operator.cost([to_shapes(a) for a in args], to_shapes(first)) if operator else None
        if operator is not None and macs is not None:
            operands = [args[k] for k in operator.operands if k < len(args)]
            if OPERATORS.get(name) is operator:  # of another operator, nothing is known about its operands
                refuse_mixed_dtypes(operator.name, operands)
            if name == "iftplan::block_attention":
                self.ledger.attend(None)
            self.ledger.contraction(self.caller or operator.name, macs, *operands)
        elif operator is not None or may_contract(name):
            self.ledger.unknown[name] += 1
        elif isinstance(first, Tensor) and not func.is_view:
            self.ledger.elementwise[name.removeprefix("aten::")] += first.numel()


def refuse_mixed_dtypes(operator: str, operands: Sequence[Any]) -> None:
    """Raise what a real device raises; torch's meta kernels let operands of several dtypes pass.

    Several floating-point dtypes may be met under autocast, which knows nothing of the meta device.
    """
    refuse_dtypes(operator, {operand.dtype for operand in operands if isinstance(operand, Tensor)})


def refuse_dtypes(operator: str, dtypes: Set[torch.dtype]) -> None:
    """Refuse dtypes that a real device cannot combine; see `refuse_mixed_dtypes`.

    Raises:
        TypeError: floating-point dtypes stand among others.
    """
    if len({dtype.is_floating_point for dtype in dtypes}) > 1:
        names = " and ".join(sorted(str(dtype) for dtype in dtypes))
        raise TypeError(f"the operands of {operator} must have one dtype, not {names}")
