"""Sizes that remember where they came from: torch's semi-private ShapeEnv, answered from the dense sizes.

PyTorch's shape functions run on symbolic integers and ask, wherever two sizes meet, whether they are
equal. `SymbolicSizes` answers from the sizes of the dense model and writes every equality down with
the source line that asked. Only that entry point (`evaluate_expr`) and the creation of symbols are
used; PyTorch's own guard solver is left out, which is both faster and less to depend on.
"""

from __future__ import annotations

import dis
import math
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Final, Literal

import sympy
import torch

from iftplan.nn.torch_internals.sizes import (
    FakeTensorMode,
    FloorDiv,
    Max,
    Mod,
    PythonMod,
    SizesMode,
    UnplacedSizes,
    enable_python_dispatcher,
)

_TORCH: Final = Path(torch.__file__).parent
_MODULES: Final = _TORCH / "nn" / "modules"
_NN: Final = Path(__file__).parents[2]
_TRACE: Final = _NN / "reading" / "widths" / "trace.py"
# Functions of numpy that look for a method of their own name on what is no number of theirs.
_OF_NUMPY: Final = (
    *("sqrt", "cbrt", "exp", "exp2", "expm1", "log", "log2", "log10", "log1p"),
    *("sin", "cos", "tan", "sinh", "cosh", "tanh", "degrees", "radians"),
)
FROM_DATA: Final = 7
"""What a size is taken for that only data decides: neither 0 nor 1, which broadcasting gives a meaning."""
_RAISE: Final = dis.opmap["RAISE_VARARGS"]
_LIBRARIES: Final = frozenset({"sympy", "numpy", "functools.py", "contextlib.py"})


@dataclass(frozen=True, slots=True)
class Equation:
    """`left = right`, which the forward pass needs to hold, and the source line that needs it."""

    left: sympy.Expr
    right: sympy.Expr
    where: str


class SymbolicSizes(UnplacedSizes):
    """Makes symbolic sizes and collects the equations between them.

    Attributes:
        equations: every equality that held and was asked for, in order.
        dense: symbol → its size in the dense model.
        scope: paths of the modules that are running, innermost last; they name where equations come from.
        strict: whether a size that becomes a float or a text keeps its dense value from there on.
        from_data: whether a size was met that only data decides; each is taken for `FROM_DATA`.
        hashed: whether a size was looked up in a dictionary, a set or a function's cache.
    """

    def __init__(self, *, strict: bool = False) -> None:
        """Make no sizes yet.

        Args:
            strict: whether a size that becomes a float or a text keeps its dense value from there on.
        """
        super().__init__(duck_shape=False, specialize_zero_one=True)
        self.strict = strict
        self.hashed = False
        self.from_data = False
        self.equations: list[Equation] = []
        self.dense: dict[sympy.Symbol, int] = {}
        self.scope: list[str] = []
        self._attributes: set[sympy.Symbol] = set()
        self._answers: dict[sympy.Basic, sympy.Basic] = {}

    def new(self, size: int, *, attribute: bool = False) -> Any:
        """A fresh symbolic size (a plain integer for 0 and 1, which broadcasting gives a meaning).

        Args:
            size: its value in the dense model.
            attribute: whether it stands for a module's integer, whose meaning is not known yet.
        """
        symbol = self.symbol(size)
        if symbol.is_Symbol:
            self.dense[symbol] = size
            if attribute:
                self._attributes.add(symbol)
        return self.create_symintnode(symbol, hint=size, source=None)

    def fake_mode(self) -> FakeTensorMode:
        """The mode in which tensors have these sizes and no storage."""
        return SizesMode(shape_env=self, allow_non_fake_inputs=True)

    @contextmanager
    def tracing(self, mode: FakeTensorMode) -> Iterator[None]:
        """Run Python shape functions on `mode`'s tensors.

        Without the Python dispatcher some C++ shape functions (padding) would pin every size. A size
        that becomes a float (`math.sqrt(head_dim)`) gives its dense value: a scale constrains nothing.
        One that is looked up has the hash of its dense value, and is compared with what it finds.
        """
        methods = self._conversions()
        before = {name: vars(torch.SymInt).get(name) for name in methods}
        for name, method in methods.items():
            setattr(torch.SymInt, name, method)
        try:
            with mode, torch.no_grad(), enable_python_dispatcher():
                yield
        finally:
            for name, own in before.items():
                if own is None:
                    delattr(torch.SymInt, name)
                else:
                    setattr(torch.SymInt, name, own)

    def _conversions(self) -> dict[str, Callable[..., Any]]:
        """What Python and numpy ask of a number, for sizes."""

        def dense(size: torch.SymInt) -> int:
            return int(size) if self.strict else int(size.node.hint)

        def looked_up(size: torch.SymInt) -> int:
            self.hashed = True
            return hash(int(size.node.hint))

        def numerically(function: Callable[[float], float]) -> Callable[[torch.SymInt], float]:
            return lambda size: function(float(dense(size)))

        return {
            "__float__": lambda size: float(dense(size)),
            "__hash__": looked_up,
            "__str__": lambda size: str(dense(size)),
            "__format__": lambda size, form: format(dense(size), form),
            **{name: numerically(getattr(math, name)) for name in _OF_NUMPY},
        }

    def value(self, expression: sympy.Basic) -> sympy.Basic:
        """Value of the expression in the dense model."""
        known = self.settled(expression)
        return known.xreplace({s: sympy.Integer(self.dense[s]) for s in known.free_symbols})

    def settled(self, expression: sympy.Expr) -> sympy.Expr:
        """The expression with what data decides as it was assumed."""
        unknown = expression.free_symbols - self.dense.keys()
        self.from_data = self.from_data or bool(unknown)
        return expression.xreplace(dict.fromkeys(unknown, sympy.Integer(FROM_DATA)))

    def evaluate_expr(  # the signature is torch's
        self,
        orig_expr: sympy.Basic,
        hint: int | bool | float | None = None,
        fx_node: Any = None,
        size_oblivious: bool = False,
        fallback_value: bool | None = None,
        *,
        forcing_spec: bool = False,
    ) -> sympy.Basic:
        """Value of an expression at the dense sizes; what the answer supposes of other sizes is written down.

        Args:
            orig_expr: expression in the symbolic sizes.
            hint: torch's guess, of no use here, where every size is known.
            fx_node: the graph's node that asks, unused.
            size_oblivious: whether torch would answer without the sizes 0 and 1, unused.
            fallback_value: torch's answer where a size is unknown, unused.
            forcing_spec: whether torch would fix the size, unused.
        """
        known = self._answers.get(orig_expr)
        if known is not None:
            return known
        answer = self.value(orig_expr)
        self._answers[orig_expr] = answer
        if orig_expr.free_symbols:
            self._suppose(orig_expr, answer)
        return answer

    def guard_or_defer_runtime_assert(self, orig_expr: sympy.Basic, msg: str, fx_node: Any = None) -> bool:  # type: ignore[override]  # torch wraps its own in a cache
        """Answer to an operator's check of sizes, found like the answer to a question about them.

        Args:
            orig_expr: condition in the symbolic sizes.
            msg: torch's message, unused.
            fx_node: the graph's node that asks, unused.
        """
        return bool(self.evaluate_expr(orig_expr))

    def _maybe_evaluate_static(  # type: ignore[override]  # torch wraps its own in a cache
        self, expr: sympy.Basic, *, unbacked_only: bool = False, **_: Any
    ) -> sympy.Basic | None:
        """Only what needs no knowledge of the sizes is known statically; a size from data stays as it is."""
        return expr if unbacked_only or not expr.free_symbols else None

    def _suppose(self, asked: sympy.Basic, answer: sympy.Basic) -> None:
        if isinstance(answer, sympy.logic.boolalg.BooleanAtom):
            pairs = _equalities(asked, bool(answer))
        else:  # the plain integer was asked for; a scale factor (a float) constrains nothing
            pairs = [(asked, answer)] if answer.is_Integer else []
        divisors = {s: sympy.Integer(self.dense[s]) for s in self._dividing_constants(asked)}
        pairs += divisors.items()
        for left, right in pairs:
            left, right = self._without_max(left), self._without_max(right)
            if left != right and (left.free_symbols | right.free_symbols) <= self.dense.keys():
                self.equations.append(Equation(left, right, f"{self._module()}{_asking_line()}"))
        if divisors:  # they are constants from here on, so that what follows stays simple
            self.replacements.update(divisors)
            self._replacements_version_counter += 1
            self._update_version_counter()

    def _dividing_constants(self, asked: sympy.Basic) -> set[sympy.Symbol]:
        """Attributes that divide a plain number, as a patch size divides an image: they cannot scale."""
        quotients = asked.atoms(FloorDiv, Mod, PythonMod)
        return {a.args[1] for a in quotients if a.args[0].is_Integer} & self._attributes

    def _module(self) -> str:
        return f"{self.scope[-1] or '(model)'} at " if self.scope else ""

    def _without_max(self, size: sympy.Expr) -> sympy.Expr:
        """Strides are written as `Max(1, size)`; no size here is below 1."""
        known = {m: max(m.args, key=self.value) for m in size.atoms(Max)}
        return size.xreplace(known) if known else size


def _equalities(asked: sympy.Basic, held: bool) -> list[tuple[sympy.Expr, sympy.Expr]]:
    """The equalities that follow from a condition that held (or, negated, did not)."""
    if isinstance(asked, sympy.Not):
        return _equalities(asked.args[0], not held)
    if isinstance(asked, sympy.Eq if held else sympy.Ne):
        return [(asked.args[0], asked.args[1])]
    if isinstance(asked, sympy.And if held else sympy.Or):
        return [pair for part in asked.args for pair in _equalities(part, held)]
    return []


def expression(size: Any) -> sympy.Expr:
    """The SymPy expression of a symbolic or plain size."""
    return size.node.expr if isinstance(size, torch.SymInt) else sympy.Integer(int(size))


def _asking_line() -> str:
    """The innermost line of the model's own code, or of a torch module if there is none."""
    return _line_of(_outwards(sys._getframe(2)))[0] or "torch"


def raised_at(trace: TracebackType | None) -> tuple[str, bool]:
    """The innermost line of the model's own code under an error, and whether that line raised it itself."""
    steps = list(_steps(trace))
    line, own = _line_of((step.tb_frame, step.tb_lineno) for step in reversed(steps))
    last = steps[-1]
    raised = last.tb_frame.f_code.co_code[last.tb_lasti] == _RAISE
    return line or "torch", own and raised and _part(last.tb_frame.f_code.co_filename) == "model"


def _steps(trace: TracebackType | None) -> Iterator[TracebackType]:
    while trace is not None:
        yield trace
        trace = trace.tb_next


def _outwards(frame: FrameType | None) -> Iterator[tuple[FrameType, int]]:
    while frame is not None:
        yield frame, frame.f_lineno
        frame = frame.f_back


def _line_of(frames: Iterable[tuple[FrameType, int]]) -> tuple[str, bool]:
    """The first line of the model's own code, or of a torch module if there is none, and whether it is the model's."""
    module_line = ""
    for frame, number in frames:
        match _part(frame.f_code.co_filename):
            case "model":
                return _line(Path(frame.f_code.co_filename), number), True
            case "module":
                module_line = module_line or _line(Path(frame.f_code.co_filename), number)
            case "trace":
                break
    return module_line, False


@cache
def _part(filename: str) -> Literal["trace", "module", "model", "other"]:
    """What a file is: ours that begins the trace, a module of torch, the model's, or something that either calls."""
    file = Path(filename)
    if file == _TRACE:
        return "trace"
    if _TORCH in file.parents:
        return "module" if file.parent == _MODULES and file.stem != "module" else "other"
    return "other" if _looks(file) or _LIBRARIES & set(file.parts) else "model"


def _looks(file: Path) -> bool:
    """Whether a file of ours looks at models; bundled networks and sparse layers are part of them."""
    return _NN in file.parents and file.relative_to(_NN).parts[0] not in ("sources", "execution")


def _line(file: Path, number: int) -> str:
    if file.name.startswith("<") or file.parent.name.startswith("ipykernel_"):
        return f"line {number} of a notebook cell"  # whose file has another name in every process
    return f"{'/'.join(file.parts[-3:])}:{number}"
