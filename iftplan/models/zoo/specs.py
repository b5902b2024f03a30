"""Specs and costs of the bundled zoo's models without building them: read and measured once, and kept in `documents/`.

`python -m iftplan.nn.reading.zoo_specs` and `python -m iftplan.nn.application.zoo_costs` write them again; tests compare
them with the networks.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from dataclasses import replace
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Literal

from iftplan.base.documents import Document
from iftplan.models.cost import ModelCost
from iftplan.models.cost_document import parse_measured
from iftplan.models.document import parse_spec
from iftplan.models.spec import InputSpec, ModelSpec
from iftplan.models.zoo.entries import ZOO


def zoo_spec(
    source: str,
    inputs: Sequence[InputSpec] = (),
    *,
    widths: bool = True,
    heads: Literal["number", "size"] = "number",
) -> ModelSpec | None:
    """The spec of a bundled model as reading its network gives it, without torch; None where only that can tell.

    Args:
        source: a MODEL argument; only `zoo:NAME` is known here.
        inputs: what it is to be read with; none stand for its own.
        widths: with the couplings of its widths.
        heads: what attention keeps when it widens, the "number" of heads or the "size" of a head.

    >>> zoo_spec("zoo:resnet18").macs
    1814073344
    >>> zoo_spec("zoo:resnet18", [InputSpec((1, 3, 128, 128))])
    """
    name = _own(source, inputs)
    if name is None:
        return None
    kept = _kept(file_name(name, heads))
    if not kept.is_file():  # attention alone tells heads apart
        kept = _kept(file_name(name, "number"))
    spec = parse_spec(_document(kept), source)
    return spec if widths else replace(spec, couplings=None, refusal="")


def zoo_cost(source: str, inputs: Sequence[InputSpec] = ()) -> ModelCost | None:
    """The cost of a bundled model as measuring its network gives it, without torch; None where only that can tell.

    >>> zoo_cost("zoo:resnet18").total_parameters
    11689512
    """
    name = _own(source, inputs)
    kept = None if name is None else _kept(cost_file_name(name))
    return parse_measured(_document(kept), source) if kept is not None and kept.is_file() else None


def _own(source: str, inputs: Sequence[InputSpec]) -> str | None:
    """The name of a bundled model that is asked for with its own inputs."""
    prefix, _, name = source.partition(":")
    known = prefix == "zoo" and name in ZOO and (not inputs or tuple(inputs) == ZOO[name].inputs)
    return name if known else None


def _kept(name: str) -> Traversable:
    return files("iftplan.models.zoo") / "documents" / name


def _document(kept: Traversable) -> Document:
    document: Document = json.loads(gzip.decompress(kept.read_bytes()))
    return document


def file_name(name: str, heads: str) -> str:
    """The name of the file that keeps a model's spec."""
    return f"{name}.json.gz" if heads == "number" else f"{name}-heads-{heads}.json.gz"


def cost_file_name(name: str) -> str:
    """The name of the file that keeps a model's cost."""
    return f"{name}-cost.json.gz"
