"""One forward pass counted by several engines, which have to agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from torch import nn

from iftplan.base.errors import MeasureError
from iftplan.models.counting import CountTable
from iftplan.models.spec import InputSpec
from iftplan.nn.counting.measure import measure
from iftplan.nn.counting.operators.registry import Operator


def measure_by(
    model: nn.Module,
    inputs: Sequence[InputSpec],
    engines: Sequence[str],
    *,
    second: str = "",
    operators: Mapping[str, Operator] = MappingProxyType({}),
) -> tuple[CountTable, ...]:
    """Counts of one forward pass in MACs, one table for each engine that could count it.

    Args:
        model: on the meta device or on the CPU.
        inputs: the inputs' shapes and dtypes.
        engines: engines that must count the pass; the first is the one whose layers are compared.
        second: an engine that counts it too if it can, on shapes alone. Where it cannot, the first table says so
            among its assumptions, and one opinion fewer is compared.
        operators: formulas for operators that have none, by qualified name.

    Raises:
        MeasureError: one of `engines` could not run the model.
    """
    tables = tuple(measure(model, inputs, engine=engine, operators=operators) for engine in engines)
    if not second or second in engines:
        return tables
    first, *rest = tables
    try:
        table = measure(model, inputs, engine=second, operators=operators)
    except MeasureError as error:
        return (_alone(first, second, f"could not run the model: {error}"), *rest)
    unknown = sorted(set(table.unknown) - set(first.unknown))
    if unknown:
        return (_alone(first, second, f"has no formula for {', '.join(unknown)}"), *rest)
    return (first, *rest, table)


def _alone(table: CountTable, second: str, why: str) -> CountTable:
    sentence = (
        f"Only {table.engine} counted this model. {second} did not check it, because it {why.rstrip('.')}."
    )
    return replace(table, assumptions=(*table.assumptions, sentence))
