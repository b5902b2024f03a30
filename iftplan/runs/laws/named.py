"""Laws by name, each with its published fits."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from iftplan.base.errors import InputError
from iftplan.runs.laws.activation import ACTIVATION
from iftplan.runs.laws.average import AVERAGE
from iftplan.runs.laws.dense import DENSE
from iftplan.runs.laws.fine_grained import FINE_GRAINED
from iftplan.runs.laws.joint_moe import JOINT_MOE
from iftplan.runs.laws.law import Law
from iftplan.runs.laws.moe_sparsity import MOE_SPARSITY
from iftplan.runs.laws.routed import ROUTED
from iftplan.runs.laws.sparse import LAWS

FITS: Mapping[str, Mapping[str, Law]] = MappingProxyType(
    {
        "sparse": MappingProxyType({name: law.as_law() for name, law in LAWS.items()}),
        "dense": MappingProxyType({"chinchilla": DENSE}),
        "average": MappingProxyType({"chinchilla": AVERAGE}),
        "joint-moe": MappingProxyType({"joint": JOINT_MOE}),
        "moe-sparsity": MappingProxyType({"abnar": MOE_SPARSITY}),
        "fine-grained-moe": FINE_GRAINED,
        "routed": ROUTED,
        "activation": ACTIVATION,
    }
)
"""Law → name of a fit → the law with its constants; the first fit is the default."""


def published(name: str, fit: str | None = None) -> Law:
    """Law of that name with the constants of a published fit, by default of its first.

    Args:
        name: of the law.
        fit: of the constants.

    Raises:
        InputError: there is none of that name.

    Example:
        >>> published("routed", "hash").title
        'language models with HASH routing'
    """
    if name not in FITS:
        raise InputError(f"there is no law {name[:60]!r}; there are {', '.join(FITS)}.")
    fits = FITS[name]
    if fit is not None and fit not in fits:
        raise InputError(f"the law {name} has no fit {fit[:60]!r}; it has {', '.join(fits)}.")
    return fits[next(iter(fits)) if fit is None else fit]
