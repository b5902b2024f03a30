"""Feed-forward blocks of a network: the linear layers up, gate and down, found by what is known of the network's layers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from iftplan.models.polynomial import Polynomial
from iftplan.models.spec import Couplings, Kind, ModelSpec, WeightLayer

LAYERS = frozenset({"Linear", "Conv1D"})
"""Classes of the layers in a block."""


@dataclass(frozen=True, slots=True)
class FeedForward:
    """Feed-forward block: a module whose only weights are those of two or three linear layers.

    Attributes:
        module: path of the module.
        up: the layers that widen, which read the same inputs: one, or two where one of them is a gate.
        down: the layer that reads what they give.
    """

    module: str
    up: tuple[WeightLayer, ...]
    down: WeightLayer

    @property
    def layers(self) -> tuple[WeightLayer, ...]:
        """All layers, those that widen first."""
        return (*self.up, self.down)

    @property
    def tokens(self) -> int:
        """Number of positions that it is applied at."""
        return self.down.layer.positions

    @property
    def model_width(self) -> int:
        """Inputs and outputs of the block."""
        return self.down.layer.out_channels or 0

    @property
    def hidden_width(self) -> int:
        """Channels between its layers."""
        return self.down.layer.in_channels or 0


def feed_forwards(spec: ModelSpec) -> Iterator[FeedForward]:
    """The feed-forward blocks of a network, in the order of their modules.

    A block is a module that holds two or three linear layers and no other: the last reads what the others give, gives as
    many channels as they read, and there are no products of activations. Where the network was read with its widths, the
    channels between have to be the same, and no product may grow with them.

    Args:
        spec: of the network.
    """
    for module, layers in _modules(spec).items():
        block = _block(module, layers)
        if block and not _has_product(spec, module) and _flows(spec, block):
            yield block


def _modules(spec: ModelSpec) -> dict[str, list[WeightLayer]]:
    """The module right above each layer → all layers in it, at any depth."""
    parents = dict.fromkeys(w.layer.name.rpartition(".")[0] for w in spec.layers)
    return {
        parent: [w for w in spec.layers if w.layer.name.startswith(f"{parent}.")]
        for parent in parents
        if parent
    }


def _block(module: str, layers: list[WeightLayer]) -> FeedForward | None:
    if len(layers) not in (2, 3):
        return None
    *up, down = layers
    shapes = {(w.layer.in_channels, w.layer.out_channels) for w in up}
    fits = shapes == {(down.layer.out_channels, down.layer.in_channels)}
    positions = {w.layer.positions for w in layers}
    return (
        FeedForward(module, tuple(up), down)
        if fits and len(positions) == 1 and all(map(_plain, layers))
        else None
    )


def _plain(weight: WeightLayer) -> bool:
    layer = weight.layer
    known = layer.kind is Kind.LINEAR and layer.experts == 1 and not layer.symbolic and layer.positions > 0
    return known and weight.class_name in LAYERS and not weight.unmaskable


def _has_product(spec: ModelSpec, module: str) -> bool:
    names = (product.name.partition(":")[0] for product in spec.products)
    return any(name == module or name.startswith(f"{module}.") for name in names)


def _flows(spec: ModelSpec, block: FeedForward) -> bool:
    """Whether the channels between the layers are one set, and no product of activations grows with it, where that is known."""
    couplings = spec.couplings
    if couplings is None or any(w.weight not in couplings.shapes for w in block.layers):
        return True
    between = {_dimension(couplings, weight, -1) for weight in block.up} | {
        _dimension(couplings, block.down, 0)
    }
    grown = frozenset().union(*(dimension.symbols for dimension in between))
    return len(between) == 1 and not any(grown & macs.symbols for macs in couplings.product_macs.values())


def _dimension(couplings: Couplings, weight: WeightLayer, end: int) -> Polynomial:
    """Inputs (0) or outputs (-1) of a layer, as the widths make them; Conv1D holds (inputs, outputs), Linear the reverse."""
    shape = couplings.shapes[weight.weight]
    return shape[end] if weight.class_name == "Conv1D" else shape[-1 - end]
