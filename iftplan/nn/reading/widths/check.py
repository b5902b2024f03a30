"""Check that a model runs at other widths, at the cost that its couplings predict."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from types import MappingProxyType, TracebackType
from typing import Any, Final

from torch import nn

from iftplan.base.errors import EndedError
from iftplan.families.integer_search import Multiplier
from iftplan.models.spec import Couplings, InputSpec
from iftplan.nn.counting.measure import data_of, measure
from iftplan.nn.counting.operators.registry import Operator
from iftplan.nn.counting.passes.data import Data
from iftplan.nn.layers.widen import widen_
from iftplan.nn.meta.copies import without_data
from iftplan.nn.reading.outputs import answers
from iftplan.nn.reading.symbolic.held_modules import StuckError
from iftplan.nn.reading.symbolic.shapes import raised_at

# √2 and √10: hardly two widths grow by the same whole factor, and what needs a square gets none.
_MULTIPLIERS: Final = (Multiplier(Fraction(2)), Multiplier(Fraction(10)))


Shapes = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Counts:
    """MACs and output shapes of one forward pass.

    Attributes:
        weights: parameter → the MACs of its products.
        products: "module:operator" → the MACs of products of activations.
        shapes: of the tensors that the model answers with.
        from_data: whether data decided how much was computed.
    """

    weights: Mapping[str, int]
    products: Mapping[str, int]
    shapes: Shapes
    from_data: bool = False


def check_widened(
    model: nn.Module,
    couplings: Couplings,
    tried: Callable[[nn.Module], Counts],
    before: Counts | None = None,
) -> StuckError | None:
    """Error of a double without data that is run at other widths; None if it runs and counts as expected.

    Args:
        model: the model at its dense widths.
        couplings: what is tried.
        tried: makes one pass of a double, and counts it as the couplings do.
        before: what it finds of the model itself, if that is known.
    """
    try:
        shapes = (before or tried(without_data(model))).shapes
        for multiplier in _MULTIPLIERS:
            sizes = {
                name: width.size if width.fixed else multiplier.scale(width.size, width.multiple_of)
                for name, width in couplings.widths.items()
            }
            counted = tried(widen_(without_data(model), couplings, sizes))
            if shapes != counted.shapes:
                return StuckError(
                    "",
                    f"its outputs change from {shape_text(shapes)} to {shape_text(counted.shapes)} at other widths",
                )
            if (failure := _miscounted(counted, couplings, sizes)) is not None:
                return failure
    except EndedError:
        raise
    except Exception as error:
        return StuckError("", f"it does not run at other widths (at {raised_at(_root(error))[0]})")
    return None


def _root(error: BaseException) -> TracebackType | None:
    return _root(error.__cause__) if error.__cause__ is not None else error.__traceback__


def counts(
    model: nn.Module,
    inputs: Sequence[InputSpec],
    operators: Mapping[str, Operator] = MappingProxyType({}),
) -> Counts:
    """MACs of a forward pass by parameter and by product, and the shapes of the model's outputs.

    Args:
        model: the network, left as it was.
        inputs: what one forward pass takes.
        operators: costs of operators that a user vouches for, by qualified name.
    """
    shapes: list[Shapes] = []

    def note(_: nn.Module, __: Any, output: Any) -> None:
        shapes.append(tuple(tuple(tensor.shape) for tensor in answers(output)))

    handle = model.register_forward_hook(note)
    try:
        table = measure(model, inputs, operators=operators)
    finally:
        handle.remove()
    products: dict[str, int] = {}
    for c in table.contractions:
        if c.weight is None:
            key = f"{c.module}:{c.operator}"
            products[key] = products.get(key, 0) + c.macs
    return Counts(table.by_weight(), products, shapes[-1], data_of(table) is Data.GIVEN)


def _miscounted(counted: Counts, couplings: Couplings, sizes: Mapping[str, int]) -> StuckError | None:
    for measured, said, separator in (
        (counted.weights, couplings.weight_macs, "."),
        (counted.products, couplings.product_macs, ":"),
    ):
        for name in measured.keys() | said.keys():
            predicted = said[name].at(sizes) if name in said else 0
            if predicted != measured.get(name, 0):
                return StuckError(
                    name.rpartition(separator)[0], f"the cost of {name} cannot be followed to other widths"
                )
    return None


def shape_text(shapes: Shapes) -> str:
    """Shapes for people, such as 1x1000."""
    return ", ".join("x".join(map(str, shape)) or "a number" for shape in shapes)
