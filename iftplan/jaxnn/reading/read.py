"""From a JAX model to its spec: weight layers, products of activations and roles."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Final

from iftplan.base.arguments import check_arguments
from iftplan.base.errors import MeasureError
from iftplan.jaxnn.counting.measure import counted, summed_products, used_weights
from iftplan.jaxnn.counting.tally import Use
from iftplan.jaxnn.reading.widths import width_couplings
from iftplan.jaxnn.sources.configuration import Configurable
from iftplan.jaxnn.sources.models import Traceable, fingerprint, traceable
from iftplan.jaxnn.sources.sources import configured
from iftplan.models.allowances import parse_vouched
from iftplan.models.counting import unknown_sentence
from iftplan.models.spec import Heads, Kind, LayerSpec, ModelSpec, Product, WeightLayer

_LOOKED_UP: Final = "an embedding: its rows are looked up, nothing is contracted"


@check_arguments
def read_model(
    model: object, *arguments: object, allow: Sequence[str] = (), widths: bool = True, heads: Heads = "number"
) -> ModelSpec:
    """Spec of a JAX model: its layers, their exact MACs and roles, from its jaxpr, without data.

    Args:
        model: a function, a module of `flax.linen` or `flax.nnx`, an Equinox module, or a source such as
            "package.module:factory".
        *arguments: what it is called with; see `measure`. Of a source, inputs, also as "1x32x32x3"; none for the
            factory's own.
        allow: costs that you vouch for, of primitives without a formula.
        widths: whether to find the widths that its configuration names: attributes of a module of `flax.linen`, arguments
            of a factory. The model is traced at other sizes for that.
        heads: what attention keeps when it widens: the "number" or the "size" of its heads.

    Raises:
        InputError: the model cannot be called, or a cost cannot be read.
        MeasureError: it does not run on these shapes, or has a primitive of unknown cost.
    """
    source = model if isinstance(model, str) else ""
    return spec_of(configured(model, arguments), allow, source, widths=widths, heads=heads)


def spec_of(
    configurable: Configurable,
    allow: Sequence[str] = (),
    source: str = "",
    *,
    widths: bool = True,
    heads: Heads = "number",
) -> ModelSpec:
    """Spec of a model that may be built again at other sizes.

    Args:
        configurable: what is read.
        allow: costs that the user vouches for.
        source: how to build it again.
        widths: whether to find its widths.
        heads: what attention keeps when it widens.

    Raises:
        MeasureError: it does not run on its shapes, or has a primitive of unknown cost.
    """
    model, vouched = traceable(*configurable.made({})), parse_vouched(allow)
    found = counted(model, vouched)
    table = found.table
    if table.unknown:
        raise MeasureError(" ".join(unknown_sentence(name, n) for name, n in sorted(table.unknown.items())))
    shapes = model.weights()
    looked_up = {
        site.weight
        for site, use in found.tally.uses.items()
        if use.shape is not None and use.shape.kind is Kind.EMBEDDING
    }
    layers = tuple(
        _layer(name, use, tuple(shapes[name].shape), name in found.last, name in looked_up, model)
        for name, use in used_weights(found.tally).items()
    )
    couplings, refusal = width_couplings(configurable, vouched, heads) if widths else (None, "")
    uncalled = tuple(f"{name} was not called, so it costs nothing." for name in table.uncalled)
    return ModelSpec(
        source=source,
        inputs=model.inputs,
        layers=layers,
        products=tuple(
            Product(name, name.rpartition(":")[2], macs) for name, macs in summed_products(table).items()
        ),
        fingerprint=fingerprint(model),
        couplings=couplings,
        refusal=refusal,
        assumptions=(*table.assumptions, *uncalled),
    )


def _layer(
    weight: str, use: Use, shape: tuple[int, ...], last: bool, looked_up: bool, model: Traceable
) -> WeightLayer:
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
    return WeightLayer(
        layer, weight, _owner(module, leaf, found.kind, stacked, model), use.first, last, reason
    )


def _owner(module: str, leaf: str, kind: Kind, stacked: int, model: Traceable) -> str:
    """Class of the module that computes with a weight, or whatever else does.

    Args:
        module: path of the module.
        leaf: name of the weight in it.
        kind: of the layer.
        stacked: matrices that its weight holds.
        model: what it is a part of.
    """
    if not model.classes:
        return f"the function {model.name}"
    label = model.classes.get(module)
    plain = label == "" and leaf in ("kernel", "weight")
    if stacked > 1 and not (plain and model.stacks):
        return f"a stack in {model.classes.get(module) or module or model.name}"
    return _CLASSES[kind] if plain else label or model.name


_CLASSES: Final = {
    Kind.LINEAR: "Linear",
    **{Kind(f"conv{d}d"): f"Conv{d}d" for d in (1, 2, 3)},
    **{Kind(f"conv_transpose{d}d"): f"ConvTranspose{d}d" for d in (1, 2, 3)},
}
"""Kind → the name that planning knows such a layer by."""
