"""Whether a model really runs at other widths, at the cost that its couplings say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from types import MappingProxyType, TracebackType
from typing import Any, Final

from torch import nn

from iftplan.counting import CountTable
from iftplan.errors import EndedError, InfeasibleError, MeasureError
from iftplan.nn.held_modules import StuckError
from iftplan.nn.measure import measure
from iftplan.nn.operators import Operator
from iftplan.nn.outputs import answers
from iftplan.nn.symbolic_shapes import raised_at
from iftplan.nn.twin import without_data
from iftplan.nn.widen import widen_
from iftplan.spec import Couplings, InputSpec
from iftplan.widening import Multiplier

# √2 and √10: hardly two widths grow by the same whole factor, and what needs a square gets none.
_MULTIPLIERS: Final = (Multiplier(Fraction(2)), Multiplier(Fraction(10)))


def check_widened(
    model: nn.Module,
    inputs: Sequence[InputSpec],
    couplings: Couplings,
    operators: Mapping[str, Operator] = MappingProxyType({}),
) -> StuckError | None:
    """What goes wrong when a double without data is run at other widths; None if nothing does."""
    try:
        _, before = run(without_data(model), inputs, operators)
        for multiplier in _MULTIPLIERS:
            sizes = {
                name: width.size if width.fixed else multiplier.scale(width.size, width.multiple_of)
                for name, width in couplings.widths.items()
            }
            table, after = run(widen_(without_data(model), couplings, sizes), inputs, operators)
            if before != after:
                return StuckError(
                    "", f"its outputs change from {_shown(before)} to {_shown(after)} at other widths"
                )
            if (failure := _miscounted(table, couplings, sizes)) is not None:
                return failure
    except EndedError:
        raise
    except Exception as error:
        return StuckError(
            "", f"it does not run at other widths ({type(error).__name__} at {raised_at(_root(error))[0]})"
        )
    return None


def check_outputs(model: nn.Module, changed: nn.Module, inputs: Sequence[InputSpec]) -> None:
    """Refuse a changed double, without data, that does not run as the model does or answers in other shapes.

    Raises:
        InfeasibleError: says what changes.
    """
    _, before = run(without_data(model), inputs)
    try:
        _, after = run(changed, inputs)
    except MeasureError as error:
        raise InfeasibleError(f"at the plan's widths the model does not run any more: {error}") from error
    if before != after:
        raise InfeasibleError(
            f"at the plan's widths the model's outputs change from {_shown(before)} to {_shown(after)}; its widths depend on numbers that were not followed. Parallel, factorized and doped keep every outer shape."
        )


def _root(error: BaseException) -> TracebackType | None:
    return _root(error.__cause__) if error.__cause__ is not None else error.__traceback__


Shapes = tuple[tuple[int, ...], ...]


def run(
    model: nn.Module,
    inputs: Sequence[InputSpec],
    operators: Mapping[str, Operator] = MappingProxyType({}),
) -> tuple[CountTable, Shapes]:
    """The counts of a forward pass, and the shapes of what it answers with."""
    shapes: list[Shapes] = []

    def note(_: nn.Module, __: Any, output: Any) -> None:
        shapes.append(tuple(tuple(tensor.shape) for tensor in answers(output)))

    handle = model.register_forward_hook(note)
    try:
        table = measure(model, inputs, operators=operators)
    finally:
        handle.remove()
    return table, shapes[0]


def _miscounted(table: CountTable, couplings: Couplings, sizes: Mapping[str, int]) -> StuckError | None:
    products: dict[str, int] = {}
    for c in table.contractions:
        if c.weight is None:
            key = f"{c.module}:{c.operator}"
            products[key] = products.get(key, 0) + c.macs
    for measured, said, separator in (
        (table.by_weight(), couplings.weight_macs, "."),
        (products, couplings.product_macs, ":"),
    ):
        for name in measured.keys() | said.keys():
            predicted = said[name].at(sizes) if name in said else 0
            if predicted != measured.get(name, 0):
                return StuckError(
                    name.rpartition(separator)[0], f"the cost of {name} cannot be followed to other widths"
                )
    return None


def _shown(shapes: Shapes) -> str:
    return ", ".join("x".join(map(str, shape)) or "a number" for shape in shapes)
