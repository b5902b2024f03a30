"""What PyTorch has for sizes that are symbols, which only the widths of a model need: SymPy comes with it."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from typing import Any

import sympy
import torch
from torch import nn

from iftplan.nn.torch_internals.late_modules import settings_of_compiler

try:
    settings_of_compiler()
    from torch._dispatch.python import enable_python_dispatcher
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.symbolic_shapes import ShapeEnv
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
    from torch.utils._sympy.numbers import int_oo
    from torch.utils._sympy.value_ranges import ValueRanges

    MISSING = ""
except (
    ImportError
) as error:  # everything but widths works without them; `require` says so where widths are asked for
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
    "FakeTensorMode",
    "FloatTrueDiv",
    "FloorDiv",
    "FloorToInt",
    "IntTrueDiv",
    "Max",
    "Mod",
    "PowByNatural",
    "PythonMod",
    "SizesMode",
    "ToFloat",
    "TruncToInt",
    "UnplacedSizes",
    "enable_python_dispatcher",
    "follows_sizes",
]


class UnplacedSizes(ShapeEnv):
    """torch's ShapeEnv without what it does for guards: it looks for the place in code that made a symbol, and bounds each."""

    def symbol(self, size: int) -> sympy.Expr:
        """A new symbol for a size of 2 and more, named as torch names it; 0 and 1 are themselves.

        Args:
            size: its value in the dense model.
        """
        if size in (0, 1):
            return sympy.Integer(size)
        made: dict[int, sympy.Symbol] = self.__dict__.setdefault("_made", {})
        number = int(sha256(f"size_{len(made)}".encode()).hexdigest(), 16) % 100
        while number in made:
            number += 1
        symbol = made[number] = sympy.Symbol(f"s{number}", positive=True, integer=True)
        for name in ("backed_var_to_val", "var_to_val"):  # another name in every few releases
            values = vars(self).get(name)
            if isinstance(values, dict):
                values[symbol] = sympy.Integer(size)
        self.var_to_range[symbol] = ValueRanges(2, int_oo)
        return symbol

    def _get_stack_summary(self, *_: Any, **__: Any) -> Any:
        return None, ""


class SizesMode(FakeTensorMode):  # type: ignore[no-untyped-call]
    """The mode in which tensors have symbolic sizes and no storage; it keeps its code from no compiler, for none runs."""

    __torch_dispatch__ = inspect.unwrap(getattr(FakeTensorMode, "__torch_dispatch__", object.__init__))

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False


def follows_sizes() -> bool:
    """Whether torch's ShapeEnv asks `evaluate_expr` wherever two symbolic sizes meet, and takes its answer."""
    asked: list[sympy.Basic] = []

    class Answering(UnplacedSizes):
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
        symbol = sizes.symbol(size)
        dense[symbol] = sympy.Integer(size)
        return sizes.create_symintnode(symbol, hint=size, source=None)

    with _symbolic(SizesMode(shape_env=sizes, allow_non_fake_inputs=True)):
        rows, columns, other = new(5), new(7), new(7)
        product: Any = nn.functional.linear(torch.empty(2, columns), torch.empty(rows, other))
    met = {columns.node.expr, other.node.expr}
    equal = any(isinstance(e, sympy.Eq | sympy.Ne) and met == e.free_symbols for e in asked)
    return equal and product.shape[1].node.expr == rows.node.expr and rows.node.hint == 5


@contextmanager
def _symbolic(mode: FakeTensorMode) -> Iterator[None]:
    with mode, torch.no_grad(), enable_python_dispatcher():
        yield
