"""From counted weights to layers: shape, positions, name, and why one cannot be masked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from torch import Tensor, nn

from iftplan.models.counting import CountTable
from iftplan.models.spec import Kind, LayerSpec, WeightLayer
from iftplan.nn.layers.branches import is_conv1d
from iftplan.nn.layers.experts import routable
from iftplan.nn.reading.dataflow import WeightUse

_LOOKED_UP = "an embedding: its rows are looked up, nothing is contracted"
_COMPUTED = "its weight is computed from this parameter, and a mask on that would not make it sparse"
_UNEVEN = "only a part of it is used, or its parts not equally often, so what its zeros save depends on where they are"
_AMONG_PRODUCTS = "its MACs could not be separated from the products of activations, which include them"


def weight_layers(model: nn.Module, table: CountTable, uses: Sequence[WeightUse]) -> tuple[WeightLayer, ...]:
    """One layer for every weight that is contracted and one for every embedding, in the order of first use.

    Their `positions · weights / experts` add up to the MACs of the table's contractions with weights.

    Args:
        model: the network that was counted.
        table: contractions of one forward pass, in MACs.
        uses: every weight at its first use, in the order of the pass.
    """
    parameters, modules = dict(model.named_parameters()), dict(model.named_modules())
    macs = table.by_weight()
    embeddings = {use.weight for use in uses if use.lookup}
    layers = []
    for use in (*uses, *_untraced(table, uses)):
        tied = not use.lookup and use.weight in embeddings
        name = _caller(table, use.weight) if tied else _owner(use.weight)
        layer, reason = _layer(name, use, parameters[use.weight], macs.get(use.weight, 0))
        if tied:
            reason = f"shares its weight with the embedding {_owner(use.weight)}"
        holder = name if name in modules else use.weight.rpartition(".")[0]
        computer = _computer(table, use.weight, holder)
        module = modules[computer]
        replaceable = layer.experts > 1 and routable(module)
        layers.append(
            WeightLayer(
                layer,
                use.weight,
                type(module).__name__,
                use.first,
                use.last,
                reason,
                replaceable,
                inputs_first=_is_square(layer) and not use.rows_are_outputs and not is_conv1d(module),
            )
        )
    return tuple(layers)


def _untraced(table: CountTable, uses: Sequence[WeightUse]) -> Iterator[WeightUse]:
    """Weights that were counted, but whose place in the graph the dataflow could not see."""
    seen = {use.weight for use in uses if not use.lookup}
    for contraction in table.contractions:
        if contraction.weight is not None and contraction.weight not in seen:
            seen.add(contraction.weight)
            yield WeightUse(contraction.weight, False, contraction.operator)


def _computer(table: CountTable, weight: str, holder: str) -> str:
    """The module that computes with a weight: its holder, or the one that reached past it."""
    callers = {c.module for c in table.contractions if c.weight == weight}
    return holder if not callers or holder in callers else min(callers)


def _is_square(layer: LayerSpec) -> bool:
    """Whether a layer is one matrix whose shape does not say which side is the inputs."""
    return layer.kind is Kind.LINEAR and layer.experts == 1 and layer.in_channels == layer.out_channels


def _caller(table: CountTable, weight: str) -> str:
    return next((c.module for c in table.contractions if c.weight == weight and c.module), weight)


def _owner(weight: str) -> str:
    """What a person calls the layer: the module whose matrix this is, else the parameter itself."""
    module, _, leaf = weight.rpartition(".")
    return module if module and leaf in ("weight", "weight_orig") else weight


def _layer(name: str, use: WeightUse, weight: Tensor, macs: int) -> tuple[LayerSpec, str]:
    """The layer whose `positions · weights` are these MACs (over its experts), and why it cannot be masked (or nothing)."""
    if use.lookup:
        return LayerSpec(name, Kind.EMBEDDING, weight.shape[0], weight.shape[1], positions=0), _LOOKED_UP
    shape = tuple(weight.shape)
    if not macs:
        return LayerSpec(name, Kind.LINEAR, weight.numel(), 1, positions=0), _AMONG_PRODUCTS
    if not use.even:
        return LayerSpec(name, Kind.LINEAR, 1, 1, positions=macs), _UNEVEN
    layer = _convolution(name, use, shape) if use.operator.startswith("conv") else _matrix(name, use, shape)
    each = layer.weights // layer.experts
    if macs % each:
        used = f"its {macs} MACs are no multiple of its {weight.numel()} weights: not all work equally often"
        return LayerSpec(name, Kind.LINEAR, 1, 1, positions=macs), used
    reason = (
        "" if layer.weights == weight.numel() else f"its weight of shape {shape} is no plain matrix or kernel"
    )
    if "parametrizations" in use.weight.split("."):
        reason = _COMPUTED
    return replace(layer, positions=macs // each), reason


def _convolution(name: str, use: WeightUse, shape: tuple[int, ...]) -> LayerSpec:
    outer, inner, *kernel = shape  # (C_out, C_in/groups, …), transposed (C_in, C_out/groups, …)
    if not kernel:  # a matrix that is reshaped to a 1×1 kernel
        return LayerSpec(name, Kind.LINEAR, *((outer, inner) if use.transposed else (inner, outer)))
    in_channels, out_channels = inner * use.groups, outer
    if use.transposed:
        in_channels, out_channels = outer, inner * use.groups
    kind = Kind(f"conv{'_transpose' if use.transposed else ''}{len(kernel)}d")
    return LayerSpec(
        name,
        kind,
        in_channels,
        out_channels,
        tuple(kernel),
        use.groups,
        depthwise=use.groups == in_channels > 1,
    )


def _matrix(name: str, use: WeightUse, shape: tuple[int, ...]) -> LayerSpec:
    """A matrix, or one of a stack of them such as the experts of a mixture."""
    rows, columns = shape[-2:] if len(shape) > 1 else (1, *shape)
    in_features, out_features = (columns, rows) if use.rows_are_outputs else (rows, columns)
    return LayerSpec(name, Kind.LINEAR, in_features, out_features, experts=use.experts)
