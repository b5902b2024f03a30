"""Which arrays of a parameter tree a plan masks, and each of them as a matrix in the rows of its structure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from iftplan.base.errors import InfeasibleError, InputError, StaleError
from iftplan.jaxnn.masking.rows import UnitRows
from iftplan.masks import MaskStructure, Unstructured, parse_mask
from iftplan.models.spec import Kind
from iftplan.plans.plan import Plan, PlannedLayer, Role

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class View:
    """One masked weight.

    Attributes:
        name: of the leaf, as in the plan.
        layer: the planned layer that it belongs to; the name itself without a plan.
        shape: of the array.
        order: its axes, those of experts and outputs before those of inputs, channels fastest.
        rows: layout in which its mask is chosen.
        nnz: weights that its mask keeps in the end.
    """

    name: str
    layer: str
    shape: Shape
    order: tuple[int, ...]
    rows: UnitRows
    nnz: int

    @property
    def kept(self) -> tuple[int, int]:
        """Units that each row keeps in the end, and how many rows keep one fewer."""
        return self.rows.kept(self.nnz)

    def units(self, array: Any) -> Any:
        """An array of the weight's shape as (rows, units): sums where a unit is more than one weight."""
        return self.rows.rows(array.transpose(self.order).reshape(-1, self.rows.inputs))

    def whole(self, rows: Any) -> Any:
        """An array of the weight's shape in which every weight has the value of its unit."""
        shape = tuple(self.shape[axis] for axis in self.order)
        inverse = sorted(range(len(shape)), key=self.order.__getitem__)
        return self.rows.matrix(rows).reshape(shape).transpose(inverse)


def views_of(plan: Plan, shapes: Mapping[str, Shape]) -> tuple[View, ...]:
    """Masked weights of a plan in the order of the tree.

    Args:
        plan: says which layers are masked, and how many weights of each are kept.
        shapes: name → shape of each leaf of the parameters; other leaves than those that are masked may be left out.

    Raises:
        StaleError: a weight of the plan is missing, or has another size.
        InputError: the structure does not fit a weight.
    """
    structure = parse_mask(plan.mask)
    found = {
        view.name: view
        for layer in plan.layers
        if layer.maskable
        # the counts of depthwise layers follow from their neighbours, which patterns need not divide
        for view in _of_layer(layer, structure if layer.role is Role.TRANSFORMED else Unstructured(), shapes)
    }
    return tuple(found[name] for name in shapes if name in found)


def flat_view(name: str, shape: Shape, nnz: int) -> View:
    """A weight without a plan, masked without structure.

    Args:
        name: of the leaf.
        shape: of the array.
        nnz: weights that its mask keeps.
    """
    return View(name, name, shape, tuple(range(len(shape))), UnitRows(Unstructured(), 1, prod(shape)), nnz)


def _of_layer(layer: PlannedLayer, structure: MaskStructure, shapes: Mapping[str, Shape]) -> Iterator[View]:
    names = masked_names(layer, shapes)
    layouts = [_layout(name, shapes[name], layer, structure) for name in names]
    sizes = tuple((rows.inputs, rows.outputs) for _, rows in layouts)
    try:
        counts = structure.shares(sizes, layer.nnz // layer.experts)
    except InfeasibleError as error:
        raise InputError(f"{layer.name}: {error}") from error
    for name, (order, rows), each in zip(names, layouts, counts, strict=True):
        view = View(name, layer.name, shapes[name], order, rows, each * layer.experts)
        try:
            rows.kept(view.nnz)
        except InputError as error:
            raise InputError(f"{name}: {error}") from error
        yield view


def masked_names(layer: PlannedLayer, shapes: Mapping[str, Shape]) -> tuple[str, ...]:
    """Names of the leaves that a planned layer's mask covers: those of its branches or factors, or its own.

    Args:
        layer: as it was planned.
        shapes: name → shape of each leaf.

    Raises:
        StaleError: there are none of the planned size.
    """
    own = [layer.weight] if layer.weight in shapes else []
    inside = f"{layer.name}."
    parts = [
        x for x in shapes if x.startswith(inside) and len(shapes[x]) > 1 and not x.endswith(".bias")
    ]  # a bias of Equinox has the axes of its window
    front = [x for x in parts if ".sparse." in x.removeprefix(layer.name)]  # beside a dense low-rank path
    for names in (own, front, parts):
        if names and sum(prod(shapes[name]) for name in names) == layer.capacity:
            return tuple(names)
    sizes = sum(prod(shapes[name]) for name in own or parts)
    missing = f"has {sizes} weights to mask where {layer.capacity} were planned" if sizes else "is not there"
    raise StaleError(
        f"{layer.weight or layer.name} {missing}; apply the plan to the model first, or make the plan again."
    )


def _layout(name: str, shape: Shape, layer: PlannedLayer, structure: MaskStructure) -> tuple[Shape, UnitRows]:
    """Axes of a weight in the order of its matrix, and the rows of that."""
    spec = layer.after or layer.before
    assert spec is not None, "a masked layer has a weight"
    stack = (0,) if layer.experts > 1 and len(shape) > 2 and shape[0] == layer.experts else ()
    axes = tuple(range(len(stack), len(shape)))
    channels = (spec.in_channels or 0) // spec.groups, spec.out_channels or 0
    found = _sides(name.rpartition(".")[2], axes, shape, spec.kind, channels)
    if found is None:
        if structure.directed and not isinstance(structure, Unstructured):
            raise InputError(
                f"{name}: of its shape {shape} iftplan cannot tell which axes are the inputs, along which {structure} patterns run. Plan unstructured masks, or name the array kernel (inputs first, as Flax does) or weight (outputs first, as Equinox does)."
            )
        found = axes[:1], axes[1:]
    outputs, inputs = found
    sizes = prod(shape[axis] for axis in outputs), prod(shape[axis] for axis in inputs)
    try:
        return (*stack, *outputs, *inputs), UnitRows(structure, *sizes, layer.experts)
    except InputError as error:
        raise InputError(f"{name}: {error}") from error


def _sides(
    leaf: str, axes: Shape, shape: Shape, kind: Kind, channels: tuple[int, int]
) -> tuple[Shape, Shape] | None:
    """Axes of outputs and of inputs, channels of a convolution fastest; None where the shape does not tell.

    Args:
        leaf: last part of the array's name: Flax calls weights kernel, Equinox weight.
        axes: without those of experts.
        shape: of the whole array.
        kind: of the layer.
        channels: inputs of a group, and outputs, of the planned layer.
    """
    window = kind.spatial_dims
    if kind.transposed or len(axes) < 2 or (window and len(axes) != window + 2):
        return None
    if window:
        flax = (axes[-1:], axes[:-1])
        other = (axes[:1], (*axes[2:], axes[1]))
        sides = {"kernel": flax, "weight": other}
        fits = [x for x in (flax, other) if (shape[x[1][-1]], shape[x[0][0]]) == channels]
        return sides.get(leaf) or (fits[0] if len(fits) == 1 else None)
    splits = [(axes[k:], axes[:k]) for k in range(1, len(axes))]  # inputs first
    turned = [(axes[:k], axes[k:]) for k in range(1, len(axes))]
    choices = {"kernel": splits, "embedding": splits, "weight": turned}.get(leaf, splits + turned)
    fits = [
        x for x in choices if (prod(shape[a] for a in x[1]), prod(shape[a] for a in x[0])) == channels
    ] or choices
    return fits[0] if len(fits) == 1 else None
