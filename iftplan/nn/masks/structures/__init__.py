"""Masks of each structure as tensors, one file each, named as in `iftplan.masks.structures`."""

from __future__ import annotations

from functools import cache
from inspect import isabstract
from typing import Any

from iftplan.base.errors import InputError
from iftplan.base.folders import classes_in
from iftplan.masks import MaskStructure
from iftplan.nn.masks.structured import Masks


def masks_of(structure: MaskStructure) -> Masks[Any]:
    """Masks of a structure as tensors, of the class that its file here holds.

    Raises:
        InputError: there is no file of its name in this folder.
    """
    kind = _kind(type(structure).__module__.rpartition(".")[2])
    if kind is None:
        raise InputError(f"{structure} masks can be planned, but iftplan cannot draw or train them.")
    return kind(structure)


@cache
def _kind(name: str) -> type[Masks[Any]] | None:
    module = f"{__name__}.{name}"
    try:
        found = tuple(classes_in(module, Masks))  # type: ignore[type-abstract]
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        return None
    return next((kind for kind in found if not isabstract(kind)), None)
