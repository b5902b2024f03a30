"""The Sparse-IFT families, one per file: an equation, its cost expression, the symbol it leaves free."""

from iftplan.transforms.definition import Definition
from iftplan.transforms.doped import DOPED
from iftplan.transforms.factorized import FACTORIZED
from iftplan.transforms.lowrank import LOWRANK
from iftplan.transforms.nm import NM
from iftplan.transforms.parallel import PARALLEL
from iftplan.transforms.wide import WIDE

DEFINITIONS: tuple[Definition, ...] = (WIDE, PARALLEL, FACTORIZED, DOPED, LOWRANK, NM)

__all__ = ["DEFINITIONS", "DOPED", "FACTORIZED", "LOWRANK", "NM", "PARALLEL", "WIDE", "Definition"]
