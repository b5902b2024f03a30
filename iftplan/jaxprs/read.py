"""From a JAX model to its spec: weight layers, products of activations and roles."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from math import prod
from typing import Any, Final

from iftplan.base.arguments import check_arguments
from iftplan.base.errors import MeasureError
from iftplan.jaxprs.measure import counted
from iftplan.jaxprs.models import Traceable, traceable
from iftplan.jaxprs.sources import construct
from iftplan.jaxprs.tally import Use
from iftplan.models.allowances import parse_vouched
from iftplan.models.counting import CountTable, unknown_sentence
from iftplan.models.spec import Kind, LayerSpec, ModelSpec, Product, WeightLayer

NO_WIDTHS: Final = "widths of JAX models are not traced; plans that keep the widths can be made"
_LOOKED_UP: Final = "an embedding: its rows are looked up, nothing is contracted"


@check_arguments
def read_model(model: object, *arguments: object, allow: Sequence[str] = ()) -> ModelSpec:
    """Spec of a JAX model: its layers, their exact MACs and roles, from its jaxpr, without data.

    Args:
        model: a function, a module of `flax.linen` or `flax.nnx`, an Equinox module, or a source such as
            "package.module:factory".
        *arguments: what it is called with; see `measure`. Of a source, inputs, also as "1x32x32x3"; none for the
            factory's own.
        allow: costs that you vouch for, of primitives without a formula.

    Raises:
        InputError: the model cannot be called, or a cost cannot be read.
        MeasureError: it does not run on these shapes, or has a primitive of unknown cost.
    """
    if isinstance(model, str):
        return spec_of(construct(model, arguments), allow, model)
    return spec_of(traceable(model, arguments), allow)


def spec_of(model: Traceable, allow: Sequence[str] = (), source: str = "") -> ModelSpec:
    """Spec of what can be traced.

    Args:
        model: what is read.
        allow: costs that the user vouches for.
        source: how to build it again.

    Raises:
        MeasureError: it does not run on its shapes, or has a primitive of unknown cost.
    """
    table, tally, last = counted(model, parse_vouched(allow))
    if table.unknown:
        raise MeasureError(" ".join(unknown_sentence(name, n) for name, n in sorted(table.unknown.items())))
    shapes = model.weights()
    uses: dict[str, Use] = {}
    looked_up = set()
    for site, use in tally.uses.items():
        if site.weight:
            if use.shape is not None and use.shape.kind is Kind.EMBEDDING:
                looked_up.add(site.weight)
            uses[site.weight] = uses[site.weight] + use if site.weight in uses else use
    layers = tuple(
        _layer(name, use, tuple(shapes[name].shape), name in last, name in looked_up)
        for name, use in uses.items()
    )
    uncalled = tuple(f"{name} was not called, so it costs nothing." for name in table.uncalled)
    return ModelSpec(
        source=source,
        inputs=model.inputs,
        layers=layers,
        products=tuple(_products(table)),
        fingerprint=_fingerprint(model.name, shapes),
        refusal=NO_WIDTHS,
        assumptions=(*table.assumptions, *uncalled),
    )


def _layer(weight: str, use: Use, shape: tuple[int, ...], last: bool, looked_up: bool) -> WeightLayer:
    """The layer whose `positions · weights / experts` are the MACs of a weight's products."""
    assert use.shape is not None, "a weight's products have a shape"
    found = use.shape
    module, _, leaf = weight.rpartition(".")
    name = module if module and leaf in ("kernel", "weight", "embedding") else weight
    if not use.macs:
        layer = LayerSpec(name, Kind.EMBEDDING, found.in_channels, found.out_channels, positions=0)
        return WeightLayer(layer, weight, "Embed", use.first, last, _LOOKED_UP)
    each = found.in_channels // found.groups * found.out_channels * prod(found.kernel)
    if use.macs % each:
        said = f"its {use.macs} MACs are no multiple of its {prod(shape)} weights: not all work equally often"
        return WeightLayer(
            LayerSpec(name, Kind.LINEAR, 1, 1, positions=use.macs), weight, "", use.first, last, said
        )
    stacked = prod(shape) // each if prod(shape) % each == 0 else 0
    reason = f"shares its weight with the embedding {name}" if looked_up else ""
    if not stacked or (stacked > 1 and found.kernel):
        reason = f"its weight of shape {shape} is no plain matrix or kernel"
        stacked = 1
    layer = LayerSpec(
        name,
        found.kind,
        found.in_channels,
        found.out_channels,
        found.kernel,
        found.groups,
        positions=use.macs // each,
        depthwise=found.groups == found.in_channels > 1,
        experts=stacked,
    )
    kind = "" if stacked > 1 else _CLASSES[found.kind]
    return WeightLayer(layer, weight, kind, use.first, last, reason)


_CLASSES: Final = {
    Kind.LINEAR: "Linear",
    **{Kind(f"conv{d}d"): f"Conv{d}d" for d in (1, 2, 3)},
    **{Kind(f"conv_transpose{d}d"): f"ConvTranspose{d}d" for d in (1, 2, 3)},
}
"""Kind → the name that planning knows such a layer by."""


def _products(table: CountTable) -> Iterator[Product]:
    """Products of activations, added up for each module and primitive, in the order of their first use."""
    for found in table.contractions:
        if found.weight is None:
            yield Product(f"{found.module}:{found.operator}", found.operator, found.macs)


def _fingerprint(name: str, weights: Mapping[str, Any]) -> str:
    """SHA-256 (hex) over the model's name and the names and shapes of its weights."""
    document = {"model": name, "weights": [[weight, list(leaf.shape)] for weight, leaf in weights.items()]}
    return sha256(json.dumps(document, separators=(",", ":")).encode()).hexdigest()
