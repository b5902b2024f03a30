"""What PyTorch has for sizes that are symbols, which only the widths of a model need: SymPy comes with it."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sympy
import torch
from torch import nn

from iftplan.nn.torch_internals.late_modules import settings_of_compiler

try:
    settings_of_compiler()
    from torch._dispatch.python import enable_python_dispatcher
    from torch._guards import Source
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
except (
    ImportError
) as error:  # everything but widths works without them; `require` says so where widths are asked for
    MISSING = str(error)

    class _Absent(sympy.Function):  # type: ignore[misc]  # sympy is untyped
        """Stands where a class of torch would; no expression is made of it."""

    ShapeEnv = FakeTensorMode = Source = object  # type: ignore[assignment, misc]
    CleanDiv = FloorDiv = IntTrueDiv = Max = Mod = PythonMod = _Absent  # type: ignore[misc]
    CeilToInt = FloatTrueDiv = FloorToInt = PowByNatural = ToFloat = TruncToInt = _Absent  # type: ignore[misc]

__all__ = [
    "MISSING",
    "CeilToInt",
    "CleanDiv",
    "DimDynamic",
    "FakeTensorMode",
    "FloatTrueDiv",
    "FloorDiv",
    "FloorToInt",
    "IntTrueDiv",
    "Max",
    "Mod",
    "NamedSize",
    "PowByNatural",
    "PythonMod",
    "SizesMode",
    "ToFloat",
    "TruncToInt",
    "UnplacedSizes",
    "enable_python_dispatcher",
    "follows_sizes",
]


class NamedSize(Source):
    """Origin of a symbol, which torch wants to be told: a number of ours."""

    def __init__(self, number: int) -> None:
        self._number = number

    @property
    def _name_template(self) -> str:
        return f"size_{self._number}"

    if callable(getattr(Source, "name", None)):  # a method before PyTorch 2.10

        def name(self) -> str:
            """The text by which torch tells symbols apart."""
            return self._name_template


class UnplacedSizes(ShapeEnv):
    """torch's ShapeEnv without the places in code that its messages and traces name, which it looks for at every symbol."""

    def create_symbol(self, *args: Any, **kwargs: Any) -> sympy.Expr:
        """The symbol of a new size, as torch makes it and without its trace."""
        traces = logging.getLogger("torch.__trace")
        before, traces.handlers = traces.handlers, []
        try:
            return super().create_symbol(*args, **kwargs)
        finally:
            traces.handlers = before

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
        symbol = sizes.create_symbol(size, NamedSize(len(dense)), dynamic_dim=DimDynamic.DYNAMIC)
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
