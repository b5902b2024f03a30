"""A machine's profile: what layers of a coarse grid take on it, dense and sparse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from types import MappingProxyType
from typing import Final, get_args

from iftplan.masks import MaskStructure
from iftplan.plans.plan import Pass
from iftplan.plans.speed.timings import LayerPair, pair_of_layer

PASSES: Final[tuple[Pass, ...]] = get_args(Pass)

WIDTHS: Mapping[str, tuple[int, ...]] = MappingProxyType(
    {"linear": (32, 128, 512), "conv1x1": (32, 128, 512), "conv3x3": (32, 128, 256)}
)
"""Inputs and outputs of the dense layers, by kind."""

COLUMNS = (1, 8, 64, 1024)
SPARSITIES = (Fraction(1, 2), Fraction(3, 4), Fraction(9, 10), Fraction(19, 20))
ROUNDS = 3


@dataclass(frozen=True, slots=True)
class ProfiledLayer:
    """Layer of the grid and its measured times.

    Attributes:
        pair: the dense layer and the masked wide one in its place.
        passes: "forward", or "step" for forward and backward together.
        dense: seconds of the dense layer in the fastest of its backends.
        sparse: seconds of the wide layer in sparse kernels.
        operators: seconds of the wide layer in dense operators; None where it was too large to be timed.
    """

    pair: LayerPair
    passes: Pass
    dense: float
    sparse: float
    operators: float | None = None


@dataclass(frozen=True, slots=True)
class Profile:
    """Measured times of one machine for a grid of layers.

    Attributes:
        machine: its processor.
        instructions: what the sparse kernels were made of.
        threads: of the processor.
        rounds: in each of which every backend ran once; times are medians.
        entries: the grid.
        digest: of the document that it was read from.
    """

    machine: str
    instructions: str
    threads: int
    rounds: int
    entries: tuple[ProfiledLayer, ...]
    digest: str = ""


def grid(
    sparsities: Sequence[Fraction],
    structures: Sequence[MaskStructure],
    widths: Sequence[int] = (),
    columns: Sequence[int] = COLUMNS,
) -> tuple[LayerPair, ...]:
    """The layers of a profile, with as many outputs as inputs.

    Args:
        sparsities: of their masks.
        structures: of their masks.
        widths: inputs of every kind of layer; those of `WIDTHS` if none is given.
        columns: positions of one sample.

    Raises:
        InfeasibleError: a structure keeps nothing of a layer.

    Example:
        >>> from iftplan.masks import Unstructured
        >>> [pair.name for pair in grid((Fraction(1, 2),), (Unstructured(),), (32,), (1,))]
        ['linear:32-32', 'conv1x1:32-32', 'conv3x3:32-32']
    """
    once = dict.fromkeys  # a profile has each layer one time, however often it was asked for
    return tuple(
        pair_of_layer(f"{kind}:{width}-{width}@{n}", sparsity, structure)
        for kind, usual in WIDTHS.items()
        for width in once(widths or usual)
        for n in once(columns)
        for structure in once(structures)
        for sparsity in once(sparsities)
    )
