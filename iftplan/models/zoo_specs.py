"""What the bundled zoo's models are, without building them: their specs, read once and kept in `specs/`.

`python -m iftplan.nn.reading.zoo_specs` writes them again; a test compares them with the networks.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from dataclasses import replace
from importlib.resources import files
from typing import Literal

from iftplan.models.document import parse_spec
from iftplan.models.spec import InputSpec, ModelSpec
from iftplan.models.zoo import ZOO


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
    prefix, _, name = source.partition(":")
    if prefix != "zoo" or name not in ZOO or (inputs and tuple(inputs) != ZOO[name].inputs):
        return None
    folder = files("iftplan.models") / "specs"
    kept = folder / file_name(name, heads)
    if not kept.is_file():  # attention alone tells heads apart
        kept = folder / file_name(name, "number")
    spec = parse_spec(json.loads(gzip.decompress(kept.read_bytes())), source)
    return spec if widths else replace(spec, couplings=None, refusal="")


def file_name(name: str, heads: str) -> str:
    """The name of the file that keeps a model's spec."""
    return f"{name}.json.gz" if heads == "number" else f"{name}-heads-{heads}.json.gz"
