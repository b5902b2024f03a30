"""One file for each mask structure: to add one is to add its file here, and nothing else has to know of it.

What it does to tensors is in the file of the same name in `iftplan.nn.masks.structures`.
"""

from __future__ import annotations

from iftplan.base.folders import classes_of
from iftplan.masks.structure import MaskStructure
from iftplan.masks.structures.unstructured import Unstructured

STRUCTURES: tuple[type[MaskStructure], ...] = tuple(
    sorted(
        classes_of(__name__, MaskStructure),  # type: ignore[type-abstract]
        key=lambda structure: (structure is not Unstructured, structure.notations),
    )
)
"""All there are, the one that lets a mask be anything first, others by their notation."""
