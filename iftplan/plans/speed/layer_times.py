"""What a plan's layers are estimated to take: each as it was, as it is planned, and in dense operators throughout."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from iftplan.families.builtin import FAMILIES
from iftplan.models.spec import LayerSpec
from iftplan.plans.plan import WIDTHS, Execution, Plan, PlannedLayer
from iftplan.plans.speed.pricing import DENSE_ABOVE, NotMeasuredError, Price, Prices


@dataclass(frozen=True, slots=True)
class Time:
    """Prices of one layer, in seconds.

    Attributes:
        execution: what it is computed with as planned.
        dense: as it was.
        planned: as it is planned; masked layers in sparse kernels.
        operators: as it is planned, but masked layers in dense operators, zeros included.
    """

    execution: Execution
    dense: Price
    planned: Price
    operators: Price


@dataclass(frozen=True, slots=True)
class Times:
    """Prices of a plan's layers, in seconds.

    Attributes:
        layers: name → prices.
        unpriced: name → why there are none.
    """

    layers: Mapping[str, Time]
    unpriced: Mapping[str, str]

    @staticmethod
    def of(plan: Plan, prices: Prices) -> Times:
        """Prices of every layer that can be priced, and the reason for each that cannot."""
        layers, unpriced = dict[str, Time](), dict[str, str]()
        for layer in plan.layers:
            try:
                _check_measured(plan, layer)
                layers[layer.name] = _time(layer, plan.mask, prices)
            except NotMeasuredError as error:
                unpriced[layer.name] = str(error)
        return Times(layers, unpriced)

    @property
    def seconds(self) -> float:
        """Estimated seconds of all priced layers as they are planned."""
        return sum(time.planned.seconds for time in self.layers.values())


def _check_measured(plan: Plan, layer: PlannedLayer) -> None:
    family = FAMILIES.get(plan.transform)
    if family and family.definition.grid is not None and "rank" in layer.structure:
        raise NotMeasuredError("products of many small blocks are not in the profile")


def _time(layer: PlannedLayer, mask: str, prices: Prices) -> Time:
    before = layer.before
    if before is None:
        raise NotMeasuredError("products of activations are not in the profile")
    parts = _parts(layer, layer.after or before)
    dense = prices.of_dense(before)
    operators = _sum(dense if shape == before else prices.of_operators(shape) for shape, _ in parts)
    if not layer.maskable or layer.density > DENSE_ABOVE:
        return Time("dense", dense, operators, operators)
    planned = _sum(
        prices.of_operators(shape) if nnz is None else prices.of_sparse(shape, nnz, mask)
        for shape, nnz in parts
    )
    return Time("sparse", dense, planned, operators)


def _sum(prices: Iterator[Price]) -> Price:
    first = next(prices)
    for price in prices:
        first += price
    return first


Part = tuple[LayerSpec, float | None]
"""A matrix that is computed by itself: its shape, and the weights that its mask keeps; None without a mask."""


def _parts(layer: PlannedLayer, wide: LayerSpec) -> tuple[Part, ...]:
    """What a planned layer is made of: itself, branches, or factors with a masked layer beside them or not."""
    structure = layer.structure
    branches, rank = structure.get("branches"), structure.get("rank")
    masked, plain = list[LayerSpec](), list[LayerSpec]()
    if isinstance(branches, int):
        masked = [wide] * branches
    elif isinstance(rank, int):
        factors = _factors(wide, rank)
        if layer.capacity and layer.dense_weights:
            masked, plain = [wide], factors
        else:
            masked, plain = (factors, []) if layer.capacity else ([], factors)
    elif structure.keys() <= set(WIDTHS):
        masked = [wide]
    weights = sum(part.weights for part in masked), sum(part.weights for part in plain)
    if weights != (layer.capacity, layer.dense_weights) or not masked + plain:
        raise NotMeasuredError("its parts were not measured")
    share = layer.nnz / layer.capacity if layer.capacity else 1
    kept = [(part, share * part.weights if layer.maskable else None) for part in masked]
    return (*kept, *((part, None) for part in plain))


def _factors(layer: LayerSpec, rank: int) -> list[LayerSpec]:
    """The first carries the kernel, the second is linear or 1×1."""
    point = (1,) * len(layer.kernel)
    return [replace(layer, out_channels=rank), replace(layer, in_channels=rank, kernel=point)]
