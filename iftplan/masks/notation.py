"""Mask structures as they are written in plans and on the command line."""

from __future__ import annotations

import re

from iftplan.base.errors import InputError
from iftplan.masks.neurons import Channel, ConstantFanIn
from iftplan.masks.patterns import NM, PAD, Block
from iftplan.masks.structure import MaskStructure, Unstructured

_FORMS = f"unstructured, 2:4, 2:4T (transposable), block4x4, fan-in, channel; 2:4{PAD}, 2:4T{PAD} and block4x4{PAD} for shapes that do not divide"


def parse_mask(text: str) -> MaskStructure:
    """Read a mask structure: `unstructured`, `2:8`, `2:8T`, `block4x4`, `fan-in` or `channel`; `2:8T+pad`.

    Raises:
        InputError: none of these, or a pattern that keeps more than there is.

    Example:
        >>> parse_mask("2:8T")
        NM(kept=2, of=8, transposable=True, padded=False)
    """
    padded = text.endswith(PAD)
    pattern = text.removesuffix(PAD)
    if match := re.fullmatch(r"(\d+):(\d+)(T?)", pattern):
        kept, of = int(match[1]), int(match[2])
        if not 0 < kept <= of or of > 64:
            raise InputError(
                f"mask structure {text!r}: N:M keeps at least 1 and at most M weights of M, and M is at most 64; the nearest is {min(max(kept, 1), max(min(of, 64), 1))}:{max(min(of, 64), 1)}."
            )
        return NM(kept, of, bool(match[3]), padded)
    if match := re.fullmatch(r"block([1-9]\d*)x([1-9]\d*)", pattern):
        return Block(int(match[1]), int(match[2]), padded)
    match text:
        case "unstructured":
            return Unstructured()
        case "fan-in":
            return ConstantFanIn()
        case "channel":
            return Channel()
        case _:
            raise InputError(f"unknown mask structure {text!r}; structures are {_FORMS}.")
