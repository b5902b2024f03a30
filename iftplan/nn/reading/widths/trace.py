"""Which channels of a model move together: couplings from one symbolic forward pass."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Final

import sympy
import torch
from torch import nn

from iftplan.base.errors import IftplanError
from iftplan.models.spec import Couplings, Heads, InputSpec
from iftplan.nn.counting.operators.registry import Operator
from iftplan.nn.counting.passes.conditions import counting_conditions
from iftplan.nn.meta.copies import to_look_at, without_data
from iftplan.nn.meta.inputs import make_inputs
from iftplan.nn.meta.preserve import preserve
from iftplan.nn.reading.outputs import answers
from iftplan.nn.reading.repeats import alike
from iftplan.nn.reading.symbolic.counting import GROUPED, SymbolicCounter, counting
from iftplan.nn.reading.symbolic.held_modules import NotRunError, StuckError, also_held, paths_within
from iftplan.nn.reading.symbolic.model import SymbolicModel, symbolic
from iftplan.nn.reading.symbolic.shapes import Equation, SymbolicSizes, expression, raised_at
from iftplan.nn.reading.widths.check import Counts, check_widened, counts
from iftplan.nn.reading.widths.data import counted_on_data
from iftplan.nn.reading.widths.equations import OUTPUT, WidthEquations, shrinks
from iftplan.nn.reading.widths.notes import head_notes, kept_heads, layer_notes
from iftplan.nn.reading.widths.polynomials import couplings
from iftplan.nn.reading.widths.size_caches import FunctionCaches
from iftplan.nn.torch_internals import require, tree_leaves

# From so many on, alike blocks share their widths: a deep model is traced in the time of few sizes.
_MANY: Final = 8
# How many kinds of modules are held at their widths before a model is refused.
_ATTEMPTS: Final = 8


def trace_widths(
    model: nn.Module,
    inputs: Sequence[InputSpec],
    *,
    heads: Heads = "number",
    operators: Mapping[str, Operator] | None = MappingProxyType({}),
) -> Couplings:
    """Find which channels of `model` move together, and its costs as polynomials in its widths.

    Every dimension of a parameter becomes a symbolic size; PyTorch's shape functions then say in one
    forward pass which of them have to be equal. No weights are needed (the meta device is enough) and
    the model is as before afterwards. Where eight or more blocks are built alike, their widths move
    together, unless one of them is stuck. What was found is tried: at other widths, a double without data has
    to run, give outputs of the same shapes and cost what the polynomials say. A module that cannot be
    followed keeps its widths, and a note says so.

    Args:
        model: any module; its weights may live on the meta device.
        inputs: what one forward pass takes.
        heads: what attention keeps: the "number" of heads (their size scales) or the "size" of a head
            (their number scales). Where one of the two cannot scale, as the size of a head under rotary
            embeddings of a fixed size, the other one does.
        operators: formulas for operators that would be unknown; None where only shapes are asked for, and no cost.

    Raises:
        InfeasibleError: no width can move, or what stops it is the model itself and no module of it.
        MeasureError: the forward pass fails, or uses an operator without a width rule.
    """
    require("widths")
    caches = FunctionCaches()
    try:
        with preserve(model):
            return _followed(_Asked(model, inputs, heads, operators), caches)
    finally:
        caches.forget()


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is to be followed, as `trace_widths` takes it."""

    model: nn.Module
    inputs: Sequence[InputSpec]
    heads: Heads
    operators: Mapping[str, Operator] | None


def _followed(asked: _Asked, caches: FunctionCaches) -> Couplings:
    """What holds when tried: what does not is told why, and what is stuck is held, module by module."""
    held: dict[str, str] = {}
    strict = False
    first: Exception | None = None
    counted: Counts | None = None
    for _ in range(_ATTEMPTS):
        try:
            found, from_data = _solved(asked, held, strict, caches)
            counted = counted or counts(without_data(asked.model), asked.inputs, asked.operators or {})
            from_data = from_data or counted.from_data
            if first is not None and all(width.fixed for width in found.widths.values()):
                break
            caches.forget()
            tried = partial(
                counted_as_assumed if from_data else counts,
                inputs=asked.inputs,
                operators=asked.operators or {},
            )
            failure = check_widened(asked.model, found, tried, None if from_data else counted)
            if failure is None:
                return counted_on_data(found, counted) if from_data else found
            if not strict:  # a size that became a float or a text may have been more than a scale
                first, strict = first or failure, True
                continue
            raise failure
        except StuckError as stuck:
            first = first or stuck
            more = also_held(asked.model, held, stuck)
            if more is None:
                break
            held = more
    assert first is not None
    raise first


@dataclass(frozen=True, slots=True)
class _Traced:
    """One symbolic forward pass and what its equations say; `met` are the symbols in them.

    `from_data` says whether it met a size that only data decides.
    """

    system: WidthEquations
    made: SymbolicModel
    counter: SymbolicCounter
    met: set[sympy.Symbol]
    from_data: bool


def counted_as_assumed(
    model: nn.Module, inputs: Sequence[InputSpec], operators: Mapping[str, Operator] = MappingProxyType({})
) -> Counts:
    """MACs of a pass without data at the model's own widths; sizes that data decide are assumed.

    Args:
        model: the network, left as it was.
        inputs: what one forward pass takes.
        operators: costs of operators that a user vouches for, by qualified name.

    Raises:
        MeasureError: the model does not run that way.
    """
    sizes, everything = SymbolicSizes(), frozenset(path for path, _ in model.named_modules())
    _, counter, output = _run(_Asked(model, inputs, "number", operators), sizes, {}, everything)
    counter.settle(sizes.value)
    weights: dict[str, int] = {}
    products: dict[str, int] = {}
    for call in counter.calls:
        table, key = (weights, call.weight) if call.weight else (products, f"{call.module}:{call.operator}")
        table[key] = table.get(key, 0) + int(call.macs)
    shapes = tuple(tuple(int(sizes.value(expression(n))) for n in t.shape) for t in answers(output))
    return Counts(weights, products, shapes, from_data=True)


def _solved(
    asked: _Asked, held: Mapping[str, str], strict: bool, caches: FunctionCaches
) -> tuple[Couplings, bool]:
    heads = asked.heads
    twins = alike(asked.model, at_least=_MANY)
    traced = _trace(asked, twins, held, strict, caches)
    if twins and _blocked(traced, twins):
        traced = _trace(asked, {}, held, strict, caches)
    system, made, counter = traced.system, traced.made, traced.counter
    _keep_heads(system, counter, heads)
    _keep_stacks(system, counter, heads)
    _keep_tables(system, made)
    _keep_unmet(system, made, traced.met)
    _keep_idle(system, made, counter)
    _keep_attributes(system, made)
    for call in counter.calls:
        system.simplify(
            call.macs
        )  # what only a value can answer fixes sizes, and is to do so before names are given
    found, ends = couplings(system, made, counter)
    number = kept_heads(system, counter)
    notes = [f"{path} keeps its widths: {why}" for path, why in held.items()]
    notes += [*head_notes(system, counter, heads), *layer_notes(found, held, ends)]
    return replace(found, heads=number, notes=tuple(notes)), traced.from_data


def _trace(
    asked: _Asked,
    twins: Mapping[str, str],
    held: Mapping[str, str],
    strict: bool,
    caches: FunctionCaches,
) -> _Traced:
    asked = replace(asked, model=to_look_at(asked.model))
    inside = paths_within(asked.model, held)
    sizes = SymbolicSizes(strict=strict)
    try:
        made, counter, output = _run(asked, sizes, twins, inside)
    except IftplanError:
        if not sizes.hashed:
            raise
    if sizes.hashed:  # a function's cache may have answered with sizes from before
        caches.met = True
        caches.forget()
        sizes = SymbolicSizes(strict=strict)
        made, counter, output = _run(asked, sizes, twins, inside)
    counter.settle(sizes.settled)
    system = WidthEquations(dict(sizes.dense))
    system.add(sizes.equations)
    system.add(Equation(sympy.Mod(e, n), sympy.Integer(0), why) for e, n, why in made.multiples)
    for tensor in answers(output):
        for size in map(sizes.settled, map(expression, tensor.shape)):
            for symbol in sorted(system.simplify(size).free_symbols, key=str):
                system.pin(symbol, OUTPUT)
    met = _symbols(side for e in sizes.equations for side in (e.left, e.right))
    return _Traced(system, made, counter, met, sizes.from_data)


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
    asked: _Asked, sizes: SymbolicSizes, twins: Mapping[str, str], held: Set[str]
) -> tuple[SymbolicModel, SymbolicCounter, object]:
    model, heads = to_look_at(asked.model), asked.heads
    mode = sizes.fake_mode()
    mode.cache_enabled = False  # every call has sizes of its own; looking them up costs more than it saves
    with _quiet(), counting_conditions(model), symbolic(model, sizes, mode, heads, twins, held) as made:
        with mode:
            args, kwargs = make_inputs(asked.inputs, "cpu")
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        counted = counting(model, made.tensors, given, sizes.scope, held, asked.operators)
        with sizes.tracing(mode), counted as counter:
            try:
                once = _named_once(model, made.tensors)
                output = torch.func.functional_call(model, once, args, kwargs, tie_weights=False)
            except IftplanError:
                raise
            except Exception as error:
                raise NotRunError(counter.scope[-1], _said(error)) from error
    return made, counter, output


def _said(error: Exception) -> str:
    """What stopped a forward pass: the model's own words, or where it called what takes no symbolic sizes."""
    line, own = raised_at(error.__traceback__)
    message = (str(error).splitlines() or [""])[0].rstrip(".")
    said = f"{type(error).__name__}: {message} " if own and message else ""
    return f"it does not run at symbolic widths ({said}at {line})"


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


def _keep_idle(system: WidthEquations, made: SymbolicModel, counter: SymbolicCounter) -> None:
    """A dimension that no weight's product has is no channel: learned tokens (registers, prompts) keep their number."""
    layers = {call.weight for call in counter.calls}
    widths = [d for name, shape in made.shapes.items() if name in layers or len(shape) == 1 for d in shape]
    used = _symbols(map(system.simplify, widths))
    for name, shape in made.shapes.items():
        for axis, dimension in enumerate(shape):
            for symbol in sorted(system.simplify(dimension).free_symbols - used, key=str):
                system.pin(symbol, f"dimension {axis} of {name} is no width of a layer")


def _symbols(expressions: Iterable[sympy.Basic]) -> set[sympy.Symbol]:
    return set().union(*(e.free_symbols for e in expressions))


def _keep_attributes(system: WidthEquations, made: SymbolicModel) -> None:
    """Attributes and quotients that are no parameter's dimension keep their values."""
    # A plan scales every width by one factor, so a dimension has to be a sum of widths: a difference could vanish,
    # and a product of two widths would grow by the square. And widths are told by the sizes of weights: an
    # attribute that depends on none of them could be set to anything.
    # One size is settled at a time and all are looked at anew, since every pin solves other equations as well.
    # What restricts no weight comes first, and equations that nothing solves last, for each costs a free size.
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
        shrinking = next((e for e in exprs if shrinks(e)), None)
        if shrinking is not None:
            if not system.split_off(shrinking):
                for symbol in sorted(shrinking.free_symbols, key=str):
                    system.pin(symbol, "a size that is what others leave of it")
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
