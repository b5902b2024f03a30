"""The Sparse-IFT families, one per file: an equation, its cost expression, the symbol it leaves free."""

from iftplan.families.transforms.btt import BTT
from iftplan.families.transforms.butterfly import BUTTERFLY
from iftplan.families.transforms.definition import Definition
from iftplan.families.transforms.doped import DOPED
from iftplan.families.transforms.factorized import FACTORIZED
from iftplan.families.transforms.kronecker import KRONECKER
from iftplan.families.transforms.lowrank import LOWRANK
from iftplan.families.transforms.monarch import MONARCH
from iftplan.families.transforms.nm import NM
from iftplan.families.transforms.parallel import PARALLEL
from iftplan.families.transforms.wide import WIDE

DEFINITIONS: tuple[Definition, ...] = (
    WIDE,
    PARALLEL,
    FACTORIZED,
    DOPED,
    LOWRANK,
    NM,
    MONARCH,
    BTT,
    KRONECKER,
    BUTTERFLY,
)

__all__ = [
    "BTT",
    "BUTTERFLY",
    "DEFINITIONS",
    "DOPED",
    "FACTORIZED",
    "KRONECKER",
    "LOWRANK",
    "MONARCH",
    "NM",
    "PARALLEL",
    "WIDE",
    "Definition",
]
