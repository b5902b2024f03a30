"""Mask structures as they are written in plans and on the command line."""

from __future__ import annotations

import re

from iftplan.base.errors import InputError
from iftplan.masks.structure import PAD, MaskStructure
from iftplan.masks.structures import STRUCTURES


def parse_mask(text: str) -> MaskStructure:
    """Mask structure that a notation names in any case, such as `unstructured`, `2:8`, `2:8T+pad`, `block4x4` or `fan-in`.

    Raises:
        InputError: none is written like that, or a pattern keeps more than there is.

    Example:
        >>> parse_mask("2:8T")
        NM(kept=2, of=8, transposable=True, padded=False)
    """
    written = re.sub(r"(?<=\d)t(?=\+|$)", "T", text.strip().lower())  # of a transposable structure
    for structure in STRUCTURES:
        found = structure.parse(written)
        if found is not None:
            return found
    raise InputError(f"unknown mask structure {text!r}; structures are {notations()}.")


def notations() -> str:
    """Notations of all structures, for messages."""
    padded = [name.partition(" ")[0] + PAD for each in STRUCTURES if each.pads for name in each.notations]
    every = ", ".join(name for each in STRUCTURES for name in each.notations)
    return f"{every}; {', '.join(padded[:-1])} and {padded[-1]} for shapes that do not divide"
