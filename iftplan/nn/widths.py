"""Which channels of a model move together: couplings from one symbolic forward pass."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import sympy
import torch
from torch import nn

from iftplan.errors import IftplanError, InfeasibleError, MeasureError
from iftplan.nn.conditions import counting_conditions
from iftplan.nn.inputs import make_inputs
from iftplan.nn.operators import Operator
from iftplan.nn.repeats import alike
from iftplan.nn.symbolic_counting import GROUPED, SymbolicCounter, counting
from iftplan.nn.symbolic_model import Heads, SymbolicModel, symbolic
from iftplan.nn.symbolic_shapes import Equation, SymbolicSizes, expression
from iftplan.nn.torch_internals import require, tree_leaves
from iftplan.nn.width_equations import WidthEquations
from iftplan.nn.width_polynomials import couplings
from iftplan.spec import Couplings, InputSpec

# From so many on, alike blocks share their widths: a deep model is traced in the time of few sizes.
_MANY: Final = 8


def trace_widths(
    model: nn.Module,
    inputs: Sequence[InputSpec],
    *,
    heads: Heads = "number",
    operators: Mapping[str, Operator] = MappingProxyType({}),
) -> Couplings:
    """Find which channels of `model` move together, and its costs as polynomials in its widths.

    Every dimension of a parameter becomes a symbolic size; PyTorch's shape functions then say in one
    forward pass which of them have to be equal. No weights are needed (the meta device is enough) and
    the model is as before afterwards. Where eight or more blocks are built alike, their widths move
    together, unless one of them is stuck.

    Args:
        model: any module; its weights may live on the meta device.
        inputs: what one forward pass takes.
        heads: what attention keeps: the "number" of heads (their size scales) or the "size" of a head
            (their number scales). Where one of the two cannot scale, as the size of a head under rotary
            embeddings of a fixed size, the other one does.
        operators: formulas for operators that would be unknown.

    Raises:
        InfeasibleError: the model has weights whose sizes nothing ties to the rest.
        MeasureError: the forward pass fails, or uses an operator without a width rule.
    """
    require("widths")
    twins = alike(model, at_least=_MANY)
    traced = _trace(model, inputs, heads, twins, operators)
    if twins and _blocked(traced, twins):
        traced = _trace(model, inputs, heads, {}, operators)
    system, made, counter = traced.system, traced.made, traced.counter
    _keep_heads(system, counter, heads)
    _keep_stacks(system, counter, heads)
    _keep_tables(system, made)
    _keep_unmet(system, made, traced.met)
    _keep_attributes(system, made)
    _check_constraints(made, counter, traced.met)
    return couplings(system, made, counter)


@dataclass(frozen=True, slots=True)
class _Traced:
    """One symbolic forward pass and what its equations say; `met` are the symbols in them."""

    system: WidthEquations
    made: SymbolicModel
    counter: SymbolicCounter
    met: set[sympy.Symbol]


def _trace(
    model: nn.Module,
    inputs: Sequence[InputSpec],
    heads: Heads,
    twins: Mapping[str, str],
    operators: Mapping[str, Operator],
) -> _Traced:
    sizes = SymbolicSizes()
    made, counter, output = _run(model, inputs, sizes, heads, twins, operators)
    system = WidthEquations(dict(sizes.dense))
    system.add(sizes.equations)
    system.add(Equation(sympy.Mod(e, n), sympy.Integer(0), why) for e, n, why in made.multiples)
    for tensor in _logits(output):
        for size in map(expression, tensor.shape):
            for symbol in sorted(system.simplify(size).free_symbols, key=str):
                system.pin(symbol, "an output of the model")
    met = _symbols(side for e in sizes.equations for side in (e.left, e.right))
    return _Traced(system, made, counter, met)


def _blocked(traced: _Traced, twins: Mapping[str, str]) -> bool:
    """Whether a width that repeated blocks share is stuck, perhaps because just one of them is."""
    return any(
        dimension.free_symbols and not traced.system.simplify(dimension).free_symbols
        for name, shape in traced.made.shapes.items()
        if name.rpartition(".")[0] in twins
        for dimension in shape
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """What torch logs of a failing operator is said once, in our own message."""
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    before = logger.disabled
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = before


def _run(
    model: nn.Module,
    inputs: Sequence[InputSpec],
    sizes: SymbolicSizes,
    heads: Heads,
    twins: Mapping[str, str],
    operators: Mapping[str, Operator],
) -> tuple[SymbolicModel, SymbolicCounter, object]:
    mode = sizes.fake_mode()
    mode.cache_enabled = False  # every call has sizes of its own; looking them up costs more than it saves
    with _quiet(), counting_conditions(model), symbolic(model, sizes, mode, heads, twins) as made:
        with mode:
            args, kwargs = make_inputs(inputs, "cpu")
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        with sizes.tracing(mode), counting(model, made.tensors, given, sizes.scope, operators) as counter:
            try:
                once = _named_once(model, made.tensors)
                output = torch.func.functional_call(model, once, args, kwargs, tie_weights=False)
            except IftplanError:
                raise
            except Exception as error:
                raise MeasureError(
                    f"module {counter.scope[-1] or '(model)'} ({type(model).__name__}) does not run on "
                    f"symbolic sizes: {type(error).__name__}: {(str(error).splitlines() or [''])[0].rstrip('.')}"
                ) from error
    return made, counter, output


def _named_once(model: nn.Module, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The stand-ins under one name for each place.

    A module that has two names would be given its stand-ins twice, and torch would put the first pair of
    them back in the place of the parameters.
    """
    places = (
        f"{path}.{name}" if path else name
        for path, module in model.named_modules()
        for name in (*module._parameters, *module._buffers)
    )
    return {place: tensors[place] for place in places if place in tensors}


def _keep_heads(system: WidthEquations, counter: SymbolicCounter, heads: Heads) -> None:
    """Of an attention product's two dimensions, heads and size of a head, one keeps its dense size."""
    for call in counter.calls:
        if call.weight is not None or call.heads is None:
            continue
        number = system.simplify(call.heads)
        size = [s for s in map(system.simplify, call.head_sizes) if s.free_symbols]
        if not number.free_symbols or not size:
            continue
        kept, what = ([number], "number of heads") if heads == "number" else (size, "size of a head")
        system.add(
            Equation(e, sympy.Integer(system.at_dense(e)), f"the {what} of {call.module}") for e in kept
        )


def _keep_stacks(system: WidthEquations, counter: SymbolicCounter, heads: Heads) -> None:
    """A stack of matrices keeps their number, as a mixture its experts, and a router what it chooses from."""
    for number, operator in counter.stacks:
        if operator in GROUPED or heads == "number":
            for symbol in sorted(system.simplify(number).free_symbols, key=str):
                system.pin(symbol, "the number of experts, or of other matrices in one stack")
    for size in counter.choices:
        for symbol in sorted(system.simplify(size).free_symbols, key=str):
            system.pin(symbol, "one of so many is chosen by its number, as an expert by a router")


def _keep_tables(system: WidthEquations, made: SymbolicModel) -> None:
    for rows, name in made.embeddings.items():
        for symbol in sorted(system.simplify(rows).free_symbols, key=str):
            system.pin(symbol, f"the rows of the embedding {name}")


def _keep_unmet(system: WidthEquations, made: SymbolicModel, met: set[sympy.Symbol]) -> None:
    """A dimension that no equation mentions is looked up or sliced (tables of positions), or unused."""
    for name, shape in made.shapes.items():
        for axis, dimension in enumerate(shape):
            for symbol in dimension.free_symbols - met:
                if system.simplify(symbol).free_symbols:
                    system.pin(symbol, f"dimension {axis} of {name} is looked up, sliced or unused")


def _symbols(expressions: Iterable[sympy.Basic]) -> set[sympy.Symbol]:
    return set().union(*(e.free_symbols for e in expressions))


def _logits(output: Any) -> list[torch.Tensor]:
    """The tensors that a model answers with: its logits where it names them, otherwise all."""
    if isinstance(output, torch.Tensor):
        return [output]
    if isinstance(output, Mapping):
        if isinstance(output.get("logits"), torch.Tensor):
            return [output["logits"]]
        first = next(iter(output.values()), None) if hasattr(output, "to_tuple") else None
        return _logits(first if first is not None else list(output.values()))
    if isinstance(output, list | tuple):
        return [t for part in output for t in _logits(part)]
    return []


def _keep_attributes(system: WidthEquations, made: SymbolicModel) -> None:
    """Attributes and quotients that are no parameter's dimension keep their values."""
    dimensions = [d for shape in made.shapes.values() for d in shape if d.free_symbols]
    while True:
        exprs = [system.simplify(d) for d in dimensions]
        own = {s for d in dimensions for s in d.free_symbols}
        free = set().union(*(e.free_symbols for e in exprs)) if exprs else set()
        loose = [e for e in map(system.simplify, made.attributes.values()) if e.free_symbols - free]
        if loose:
            for symbol in sorted(loose[0].free_symbols - free, key=str):
                system.pin(symbol, "an attribute that no parameter depends on")
            continue
        crossed = next((e for e in exprs if _degree(e) > 1), None)
        if crossed is not None:
            # Of the factors of a product, the one that fewest dimensions need keeps its value: in
            # grouped queries `q = ratio·h·d` and `k = h·d`, that is the ratio.
            needed = {s: sum(s in e.free_symbols for e in exprs) for s in crossed.free_symbols}
            order = sorted(needed, key=lambda s: (needed[s], s in own, s in system.quotients, str(s)))
            system.pin(order[0], "a factor of a width that another factor scales")
            continue
        if not system.waiting:
            return
        system.finish()


def _degree(e: sympy.Expr) -> int:
    return int(sympy.Poly(e, *sorted(e.free_symbols, key=str)).total_degree()) if e.free_symbols else 0


def _check_constraints(made: SymbolicModel, counter: SymbolicCounter, met: set[sympy.Symbol]) -> None:
    """Refuse a weight that took part in a contraction and met no equation: its operator is opaque."""
    for call in counter.calls:
        if call.weight is None:
            continue
        symbols = _symbols(made.shapes[call.weight])
        if symbols and not symbols & met:
            raise InfeasibleError(
                f"parameter {call.weight} takes part in module {call.module} without any constraint on its "
                "shape, so its width cannot be followed; its module needs a plain forward pass"
            )
