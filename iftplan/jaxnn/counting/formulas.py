"""MACs of the primitives that multiply and sum, from the shapes of their operands."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from math import prod
from typing import Any, Final

from iftplan.jaxnn.counting.tally import WeightShape
from iftplan.models.spec import Kind

Shape = tuple[int, ...]


def dot_general(eqn: Any) -> int:
    """MACs of a product: batch · rows · columns · summed, and 0 where nothing is summed over."""
    left, right = _shapes(eqn)
    (summed, summed_right), (_, batch_right) = eqn.params["dimension_numbers"]
    if not summed:
        return 0
    return prod(left) * _others(right, {*summed_right, *batch_right})


def ragged_dot(eqn: Any) -> int:
    """MACs of a product of grouped rows: every row meets one group, whichever it is."""
    left, right = _shapes(eqn)
    numbers = eqn.params["ragged_dot_dimension_numbers"]
    (_, summed_right), (_, batch_right) = numbers.dot_dimension_numbers
    return prod(left) * _others(right, {*summed_right, *batch_right, *numbers.rhs_group_dimensions})


def convolution(eqn: Any) -> int:
    """MACs of a convolution: outputs times taps; of a transposed one, inputs times taps.

    Zeros that a stride puts between inputs (`lhs_dilation`) are not counted: in such a dimension each input meets each tap
    once. Zeros of the padding are, as everywhere.
    """
    inputs, kernel, outputs = _spatial(eqn)
    numbers = eqn.params["dimension_numbers"]
    (_, right), out = _shapes(eqn), eqn.outvars[0].aval.shape
    channels = out[numbers.out_spec[0]] * out[numbers.out_spec[1]] * right[numbers.rhs_spec[1]]
    pairs = [
        i * min(k, o) if spread > 1 else o * k
        for i, k, o, spread in zip(inputs, kernel, outputs, eqn.params["lhs_dilation"], strict=True)
    ]
    return int(channels * prod(pairs))


def bcoo_dot_general(eqn: Any) -> int:
    """MACs of a sparse times a dense operand: each stored element meets the other operand's free columns."""
    return _stored(eqn, coordinates=1)


def bcsr_dot_general(eqn: Any) -> int:
    """MACs of a compressed sparse times a dense operand, as `bcoo_dot_general`."""
    return _stored(eqn, coordinates=0)


def sampled_dot_general(eqn: Any) -> int:
    """MACs of a product that is computed at given places only: places · summed."""
    left = eqn.invars[0].aval.shape
    (summed, _), _ = eqn.params["dimension_numbers"]
    return int(prod(eqn.outvars[0].aval.shape) * prod(left[axis] for axis in summed))


def csr_product(eqn: Any) -> int:
    """MACs of a matrix of stored elements times a vector or a matrix: elements · columns."""
    other = eqn.invars[-1].aval.shape
    return int(prod(eqn.invars[0].aval.shape) * prod(other[1:]))


FORMULAS: Final[Mapping[str, Callable[[Any], int]]] = {
    "dot_general": dot_general,
    "ragged_dot_general": ragged_dot,
    "ragged_dot": ragged_dot,
    "conv_general_dilated": convolution,
    "bcoo_dot_general": bcoo_dot_general,
    "bcsr_dot_general": bcsr_dot_general,
    "bcoo_dot_general_sampled": sampled_dot_general,
    "csr_matvec": csr_product,
    "csr_matmat": csr_product,
    "coo_matvec": csr_product,
    "coo_matmat": csr_product,
}
"""Primitive → MACs of one call."""


def weight_shape(eqn: Any, operand: int) -> WeightShape | None:
    """The layer that a weight makes of a product; None where the primitive has no such layer.

    Args:
        eqn: the equation.
        operand: which of its operands is the weight.
    """
    match eqn.primitive.name:
        case "dot_general":
            return _linear(eqn, operand, eqn.params["dimension_numbers"], ())
        case "ragged_dot_general" | "ragged_dot":
            numbers = eqn.params["ragged_dot_dimension_numbers"]
            return _linear(eqn, operand, numbers.dot_dimension_numbers, numbers.rhs_group_dimensions)
        case "conv_general_dilated" if operand == 1 and eqn.params["batch_group_count"] == 1:
            return _convolution(eqn)
    return None


def _linear(eqn: Any, operand: int, numbers: Any, groups: Collection[int]) -> WeightShape:
    shape = eqn.invars[operand].aval.shape
    summed, batch = (set(numbers[0][operand]), set(numbers[1][operand]))
    own = set(groups) if operand == 1 else set()
    return WeightShape(
        Kind.LINEAR, prod(shape[axis] for axis in summed), _others(shape, summed | batch | own)
    )


def _convolution(eqn: Any) -> WeightShape | None:
    right = eqn.invars[1].aval.shape
    numbers, groups = eqn.params["dimension_numbers"], eqn.params["feature_group_count"]
    kernel = tuple(right[axis] for axis in numbers.rhs_spec[2:])
    if not 1 <= len(kernel) <= 3:
        return None
    transposed = "_transpose" if any(spread > 1 for spread in eqn.params["lhs_dilation"]) else ""
    inputs, outputs = right[numbers.rhs_spec[1]] * groups, right[numbers.rhs_spec[0]]
    return WeightShape(Kind(f"conv{transposed}{len(kernel)}d"), inputs, outputs, kernel, groups)


def _spatial(eqn: Any) -> tuple[Shape, Shape, Shape]:
    """Sizes of inputs, kernel and outputs in each spatial dimension."""
    numbers = eqn.params["dimension_numbers"]
    left, right = _shapes(eqn)
    out = eqn.outvars[0].aval.shape
    pick = [(left, numbers.lhs_spec), (right, numbers.rhs_spec), (out, numbers.out_spec)]
    inputs, kernel, outputs = (tuple(shape[axis] for axis in spec[2:]) for shape, spec in pick)
    return inputs, kernel, outputs


def _stored(eqn: Any, coordinates: int) -> int:
    """MACs of the stored elements of a sparse operand, each with the free columns of the dense one.

    Args:
        eqn: the equation.
        coordinates: dimensions of the indices behind the one that lists elements.
    """
    data, indices, other = (eqn.invars[position].aval.shape for position in (0, 1, -1))
    (_, summed_right), (_, batch_right) = eqn.params["dimension_numbers"]
    batch = len(indices) - 1 - coordinates
    elements = prod(eqn.params["lhs_spinfo"].shape[:batch]) * prod(data[batch:])  # a batch may share its data
    return int(elements * _others(other, {*summed_right, *batch_right}))


def _shapes(eqn: Any) -> tuple[Shape, Shape]:
    return eqn.invars[0].aval.shape, eqn.invars[1].aval.shape


def _others(shape: Shape, axes: Collection[int]) -> int:
    """Product of all sizes but those of these axes."""
    return prod(size for axis, size in enumerate(shape) if axis not in axes)
