"""Model specs as documents: a model without its weights, to plan from where no torch is."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from math import prod
from typing import Any

from pydantic import TypeAdapter

from iftplan.base.documents import Document, check, duplicate_name, with_digest
from iftplan.base.errors import InputError
from iftplan.base.validation import validate
from iftplan.models.polynomial import Polynomial
from iftplan.models.spec import PLAIN, Couplings, Kind, LayerSpec, ModelSpec

SCHEMA = "iftplan.spec/1"


def spec_document(spec: ModelSpec) -> Document:
    """The spec as a JSON object, sealed with its digest."""
    body = TypeAdapter(ModelSpec).dump_python(spec, mode="json")
    for product in body["products"]:
        if product["attention"] is None:
            del product["attention"]
    for layer in body["layers"]:
        if not layer["inputs_first"]:
            del layer["inputs_first"]
    return with_digest({"schema": SCHEMA, "convention": "mac", **body})


def parse_spec(document: Document, where: str = "spec") -> ModelSpec:
    """Spec of a model from its document.

    Raises:
        InputError: names the path inside the document.
    """
    check(document, SCHEMA, where)
    if document.get("convention") != "mac":
        raise InputError(
            f"{where}: convention is {document.get('convention')!r}, but a spec counts in 'mac'."
        )
    body = {key: value for key, value in document.items() if key not in ("schema", "convention", "digest")}
    for problem in _endless(body):
        raise InputError(f"{where}: {problem}; make the document again rather than editing it.")
    spec = validate(ModelSpec, body, where)
    for problem in _problems(spec):
        raise InputError(f"{where}: {problem}; make the document again rather than editing it.")
    return spec


_COEFFICIENT = re.compile(r"-?\d{1,60}(/\d{1,60})?")
_HIGHEST = 32
"""Of the power of a width: a cost multiplies a handful of them."""


def _endless(value: Any, path: str = "") -> Iterator[str]:
    """Numbers that would take for ever to read or to work out: 1e999999999 as a coefficient, a power of 10⁹."""
    if isinstance(value, dict):
        coefficient = value.get("coefficient")
        if isinstance(coefficient, str) and not _COEFFICIENT.fullmatch(coefficient):
            yield f"{path}coefficient: {coefficient[:60]!r} is neither a whole number nor a fraction p/q"
        for key, item in value.items():
            yield from _endless(item, f"{path}{key}.")
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from _endless(item, f"{path}{i}.")


def _problems(spec: ModelSpec) -> Iterator[str]:
    """What a type cannot say: sizes that are no sizes, couplings that do not fit the layers."""
    yield from duplicate_name("layers", (weight.layer.name for weight in spec.layers))
    yield from duplicate_name("products", (product.name for product in spec.products))
    for i, weight in enumerate(spec.layers):
        if why := _impossible(weight.layer):
            yield f"layers.{i}.layer: {why}"
        if not weight.weight:
            yield f"layers.{i}.weight is empty; it must name the parameter"
    for i, product in enumerate(spec.products):
        if product.macs < 0:
            yield f"products.{i}.macs is {product.macs}; a count cannot be negative"
        if product.attention and (why := product.attention.problem(product.macs)):
            yield f"products.{i}.attention: {why}"
        if spec.couplings and product.name not in spec.couplings.product_macs:
            yield f"couplings.product_macs has no entry {product.name!r}"
    for i, one in enumerate(spec.inputs):
        if min(one.shape, default=1) < 0 or max(one.shape, default=1) > _LARGEST:
            yield f"inputs.{i}.shape is {list(one.shape)}; a size must be from 0 to 10**15"
    if spec.couplings and spec.refusal:
        yield "it has couplings, and also a refusal, which says why there are none"
    if spec.couplings:
        yield from _misfits(spec, spec.couplings)


_LARGEST = 10**15
"""Of a size: a billion times the widest layer in use."""


def _impossible(layer: LayerSpec) -> str:
    """Why there can be no such layer; empty if there can."""
    if layer.in_channels is None or layer.out_channels is None:
        return "its channels are missing"
    sizes = (layer.in_channels, layer.out_channels, layer.groups, layer.experts, *layer.kernel)
    if min(sizes) < 1 or max(sizes) > _LARGEST:
        return "channels, groups and kernel sizes must be from 1 to 10**15"
    if not 0 <= layer.positions <= _LARGEST**2:
        return f"positions is {layer.positions}; it must be from 0 to 10**30"
    if layer.in_channels % layer.groups or layer.out_channels % layer.groups:
        return f"{layer.groups} groups do not divide {layer.in_channels} and {layer.out_channels} channels"
    if layer.depthwise and layer.groups != layer.in_channels:
        return (
            f"it is depthwise, so it needs as many groups as channels, not {layer.groups} groups of "
            f"{layer.in_channels} channels"
        )
    if len(layer.kernel) != layer.kind.spatial_dims:
        return f"a {layer.kind} layer needs {layer.kind.spatial_dims} kernel sizes, but {len(layer.kernel)} are given"
    if (layer.heads < 0 or (layer.heads and layer.in_channels % layer.heads)) or (
        layer.heads and layer.kind is not Kind.ATTENTION
    ):
        return f"a {layer.kind} layer of {layer.in_channels} channels cannot have {layer.heads} heads"
    if layer.experts > 1 and layer.kind is not Kind.LINEAR:
        return f"experts is {layer.experts}, but only linear layers have experts, and this is a {layer.kind} layer"
    return ""


def _misfits(spec: ModelSpec, couplings: Couplings) -> Iterator[str]:
    for name, width in couplings.widths.items():
        if not 1 <= width.size <= _LARGEST or not 1 <= width.multiple_of <= _LARGEST:
            yield f"couplings.widths.{name}: size and multiple_of must be from 1 to 10**15"
            return
        if width.size % width.multiple_of:
            yield f"couplings.widths.{name}: {width.size} is not a multiple of {width.multiple_of}"
    for weight in spec.layers:
        contracts = weight.layer.positions > 0 and weight.weight in couplings.shapes
        if contracts and weight.weight not in couplings.weight_macs:
            yield f"couplings.weight_macs has no entry {weight.weight!r}"
    sizes = {name: width.size for name, width in couplings.widths.items()}
    dimensions = [(f"shapes.{n}", p, 1) for n, shape in couplings.shapes.items() for p in shape]
    counts = [(f"weight_macs.{n}", p, 0) for n, p in couplings.weight_macs.items()]
    counts += [(f"product_macs.{n}", p, 0) for n, p in couplings.product_macs.items()]
    counts += [(f"attributes.{n}", p, 0) for n, p in couplings.attributes.items()]
    counts += [(f"scales.{n}", p, 1) for n, p in couplings.scales.items()]
    for path, polynomial, least in (*dimensions, *counts):
        if any(not 0 < power <= _HIGHEST for term in polynomial.terms for _, power in term.powers):
            yield f"couplings.{path}: a power must be from 1 to {_HIGHEST}"
            return
        if not _counts(polynomial, sizes, least):
            yield f"couplings.{path}: {polynomial} must be a whole number, at least {least}, at the dense model's widths"
            return
    yield from _unlike(spec, couplings, sizes)


def _unlike(spec: ModelSpec, couplings: Couplings, sizes: Mapping[str, int]) -> Iterator[str]:
    """Costs that couplings and layers give differently at the dense model's widths."""
    dense = {weight.weight: 0 for weight in spec.layers}
    for weight in spec.layers:
        dense[weight.weight] += weight.layer.dense_macs
    for name, macs in dense.items():
        polynomial = couplings.weight_macs.get(name)
        if polynomial is not None and macs and polynomial.at(sizes) != macs:
            yield (
                f"couplings.weight_macs.{name} gives {polynomial.at(sizes)} MACs at the dense model's widths, but its "
                f"layers have {macs}"
            )
    for weight in spec.layers:
        if weight.class_name not in PLAIN:
            continue
        for name, count in (
            (weight.weight, weight.layer.weights),
            (f"{weight.weight.removesuffix('weight')}bias", weight.layer.out_channels),
        ):
            shape = [dimension.at(sizes) for dimension in couplings.shapes.get(name, ())]
            if shape and prod(shape) != count:
                yield f"couplings.shapes.{name} is {shape} at the dense model's widths, but its layer has {count}"
    for product in spec.products:
        macs = couplings.product_macs[product.name].at(sizes)
        if macs != product.macs:
            yield (
                f"couplings.product_macs.{product.name} gives {macs} MACs at the dense model's widths, but the "
                f"product has {product.macs}"
            )


def _counts(polynomial: Polynomial, sizes: Mapping[str, int], least: int) -> bool:
    try:
        return polynomial.at(sizes) >= least
    except (KeyError, ValueError):
        return False
