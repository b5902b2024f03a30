"""Symbolic sizes as PyTorch has them inside; apart from the rest because it imports a compiler and SymPy with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sympy
import torch
from torch import nn

try:
    from torch._dispatch.python import enable_python_dispatcher
    from torch._dynamo.source import ConstantSource
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv
    from torch.utils._sympy.functions import (
        CeilToInt,
        CleanDiv,
        FloatTrueDiv,
        FloorDiv,
        FloorToInt,
        IntTrueDiv,
        Max,
        Mod,
        PowByNatural,
        PythonMod,
        ToFloat,
        TruncToInt,
    )

    MISSING = ""
except ImportError as error:  # `require` says so where widths are asked for; everything else works without
    MISSING = str(error)

    class _Absent(sympy.Function):  # type: ignore[misc]  # sympy is untyped
        """Stands where a class of torch would; no expression is made of it."""

    ShapeEnv = FakeTensorMode = object  # type: ignore[assignment, misc]
    CleanDiv = FloorDiv = IntTrueDiv = Max = Mod = PythonMod = _Absent  # type: ignore[misc]
    CeilToInt = FloatTrueDiv = FloorToInt = PowByNatural = ToFloat = TruncToInt = _Absent  # type: ignore[misc]

__all__ = [
    "MISSING",
    "CeilToInt",
    "CleanDiv",
    "ConstantSource",
    "DimDynamic",
    "FakeTensorMode",
    "FloatTrueDiv",
    "FloorDiv",
    "FloorToInt",
    "IntTrueDiv",
    "Max",
    "Mod",
    "PowByNatural",
    "PythonMod",
    "ShapeEnv",
    "ToFloat",
    "TruncToInt",
    "enable_python_dispatcher",
    "follows_sizes",
]


def follows_sizes() -> bool:
    """Whether torch's ShapeEnv asks `evaluate_expr` wherever two symbolic sizes meet, and takes its answer."""
    asked: list[sympy.Basic] = []

    class Answering(ShapeEnv):
        def evaluate_expr(self, orig_expr: sympy.Basic, *args: Any, **kwargs: Any) -> sympy.Basic:
            asked.append(orig_expr)
            return orig_expr.xreplace(dense)

        def _maybe_evaluate_static(  # type: ignore[override]
            self, expr: sympy.Basic, **_: Any
        ) -> sympy.Basic | None:
            return None if expr.free_symbols else expr

    sizes = Answering(duck_shape=False, specialize_zero_one=True)
    dense: dict[sympy.Basic, sympy.Integer] = {}

    def new(size: int) -> Any:
        symbol = sizes.create_symbol(
            size, ConstantSource(f"size_{len(dense)}"), dynamic_dim=DimDynamic.DYNAMIC
        )
        dense[symbol] = sympy.Integer(size)
        return sizes.create_symintnode(symbol, hint=size, source=None)

    with _symbolic(FakeTensorMode(shape_env=sizes, allow_non_fake_inputs=True)):
        rows, columns, other = new(5), new(7), new(7)
        product: Any = nn.functional.linear(torch.empty(2, columns), torch.empty(rows, other))
    met = {columns.node.expr, other.node.expr}
    equal = any(isinstance(e, sympy.Eq | sympy.Ne) and met == e.free_symbols for e in asked)
    return equal and product.shape[1].node.expr == rows.node.expr and rows.node.hint == 5


@contextmanager
def _symbolic(mode: FakeTensorMode) -> Iterator[None]:
    with mode, torch.no_grad(), enable_python_dispatcher():
        yield
