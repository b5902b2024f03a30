"""The built-in families by name, closed forms attached; importing this costs no SymPy."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from iftplan.base.errors import InputError
from iftplan.base.suggestions import did_you_mean
from iftplan.families.closed_forms import FORMS
from iftplan.families.family import Family
from iftplan.families.transforms import DEFINITIONS
from iftplan.families.transforms.experts import is_mixture

FAMILIES: Mapping[str, Family] = MappingProxyType(
    {definition.name: Family(definition, FORMS[definition.name]) for definition in DEFINITIONS}
)

SPARSE_IFT: tuple[str, ...] = tuple(
    name for name, family in FAMILIES.items() if name != "nm" and family.definition.grid is None
)
"""What "all" stands for: the families of arXiv 2303.11525, and its low-rank control."""


def family_named(name: str, *others: str) -> Family:
    """The built-in family of that name, in any case.

    Args:
        name: as it was given.
        *others: names that stand for no family, and can be given where this one was, for the message.

    Raises:
        InputError: no such family; the nearest name is given.
    """
    if (family := FAMILIES.get(name.lower())) is not None:
        return family
    if is_mixture(name):
        raise InputError(
            f"{name} replaces the feed-forward blocks of a network and no single layer. Plan a network with "
            f"`family={name!r}`, such as `iftplan plan zoo:gpt3-small --transform experts:8x2`."
        )
    known = [*FAMILIES, *others]
    meant = did_you_mean(name, known, cutoff=0.4)
    raise InputError(f"unknown family {name!r}.{meant} Families are {', '.join(known)}.")
