"""One file for each mask structure: to add one is to add its file here, and nothing else has to know of it.

What it does to tensors is in the file of the same name in `iftplan.nn.masks.structures`.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pkgutil import iter_modules

from iftplan.masks.structure import MaskStructure
from iftplan.masks.structures.unstructured import Unstructured


def _structures() -> Iterator[type[MaskStructure]]:
    """The structures of the files in this folder."""
    for file in iter_modules(__path__, f"{__name__}."):
        for value in vars(import_module(file.name)).values():
            if isinstance(value, type) and issubclass(value, MaskStructure) and value.__module__ == file.name:
                yield value


STRUCTURES: tuple[type[MaskStructure], ...] = tuple(
    sorted(_structures(), key=lambda structure: (structure is not Unstructured, structure.notations))
)
"""All there are, the one that lets a mask be anything first, others by their notation."""
