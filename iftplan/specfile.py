"""Model specs as documents: a model without its weights, to plan from where no torch is."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import TypeAdapter

from iftplan.documents import Document, check, sealed
from iftplan.errors import InputError
from iftplan.polynomial import Polynomial
from iftplan.spec import Couplings, Kind, LayerSpec, ModelSpec
from iftplan.validation import validated

SCHEMA = "iftplan.spec/1"


def spec_document(spec: ModelSpec) -> Document:
    """The spec as a JSON object, sealed with its digest."""
    body = TypeAdapter(ModelSpec).dump_python(spec, mode="json")
    return sealed({"schema": SCHEMA, "convention": "mac", **body})


def parse_spec(document: Document, where: str = "spec") -> ModelSpec:
    """A spec from its document.

    Raises:
        InputError: names the path inside the document.
    """
    check(document, SCHEMA, where)
    if document.get("convention") != "mac":
        raise InputError(
            f"{where}: convention is {document.get('convention')!r}, and a spec counts in 'mac'."
        )
    body = {key: value for key, value in document.items() if key not in ("schema", "convention", "digest")}
    spec = validated(ModelSpec, body, where)
    for problem in _problems(spec):
        raise InputError(f"{where}: {problem}; make the document again rather than editing it.")
    return spec


def _problems(spec: ModelSpec) -> Iterator[str]:
    """What a type cannot say: sizes that are no sizes, couplings that do not fit the layers."""
    for i, weight in enumerate(spec.layers):
        if not _possible(weight.layer):
            yield f"layers.{i}.layer: a layer needs channels, groups that divide them, a kernel and positions, all whole and positive"
    for i, product in enumerate(spec.products):
        if product.macs < 0:
            yield f"products.{i}.macs is {product.macs}, and no count is negative"
        if spec.couplings and product.name not in spec.couplings.product_macs:
            yield f"couplings.product_macs holds no {product.name!r}"
    if spec.couplings:
        yield from _misfits(spec, spec.couplings)


def _possible(layer: LayerSpec) -> bool:
    if layer.in_channels is None or layer.out_channels is None:
        return False
    sizes = (layer.in_channels, layer.out_channels, layer.groups, layer.experts, *layer.kernel)
    fits = min(sizes) > 0 and not layer.in_channels % layer.groups and not layer.out_channels % layer.groups
    return fits and layer.positions >= 0 and (layer.experts == 1 or layer.kind is Kind.LINEAR)


def _misfits(spec: ModelSpec, couplings: Couplings) -> Iterator[str]:
    for name, width in couplings.widths.items():
        if width.size < 1 or width.multiple_of < 1:
            yield f"couplings.widths.{name}: a width and what it is a multiple of are at least 1"
            return
    for weight in spec.layers:
        contracts = weight.layer.positions > 0 and weight.weight in couplings.shapes
        if contracts and weight.weight not in couplings.weight_macs:
            yield f"couplings.weight_macs holds no {weight.weight!r}"
    sizes = {name: width.size for name, width in couplings.widths.items()}
    dimensions = [(f"shapes.{n}", p, 1) for n, shape in couplings.shapes.items() for p in shape]
    counts = [(f"weight_macs.{n}", p, 0) for n, p in couplings.weight_macs.items()]
    counts += [(f"product_macs.{n}", p, 0) for n, p in couplings.product_macs.items()]
    counts += [(f"attributes.{n}", p, 0) for n, p in couplings.attributes.items()]
    for path, polynomial, least in (*dimensions, *counts):
        if not _counts(polynomial, sizes, least):
            yield f"couplings.{path}: {polynomial} is no whole number from {least} at the dense model's widths"


def _counts(polynomial: Polynomial, sizes: dict[str, int], least: int) -> bool:
    try:
        return polynomial.at(sizes) >= least
    except (KeyError, ValueError):
        return False
