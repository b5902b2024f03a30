"""Where adapters can be placed in a network: a search space, its size, its costs, and the random choice to be beaten.

An adapter reads what enters one block and adds a low-rank product of it to what leaves another (arXiv 2410.15858). With L
blocks there are L² places:

    usual        reads and writes at one block          L
    long-range   writes at a later block                L·(L-1)/2
    recurrent    writes at an earlier block             L·(L-1)/2     at the next pass through the network

Of width d and rank r an adapter has 2·d·r weights, and takes as many MACs for each token.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final, Literal, cast

from iftplan.base.arguments import names_in, one_of
from iftplan.base.errors import InputError
from iftplan.masks.cardinality import log2_choose

Kind = Literal["usual", "long-range", "recurrent"]
KINDS: Final[tuple[Kind, ...]] = ("usual", "long-range", "recurrent")


@dataclass(frozen=True, slots=True, order=True)
class Placement:
    """Blocks that an adapter reads and writes at, counted from 0.

    Attributes:
        reads: block whose input it reads.
        writes: block whose output it adds to.

    Example:
        >>> Placement(0, 3).kind, Placement(2, 2).kind, Placement(3, 1).kind
        ('long-range', 'usual', 'recurrent')
    """

    reads: int
    writes: int

    @property
    def kind(self) -> Kind:
        """Connection that the adapter is."""
        if self.reads == self.writes:
            return "usual"
        return "long-range" if self.reads < self.writes else "recurrent"


def placements(blocks: int, kinds: Iterable[Kind] = KINDS) -> tuple[Placement, ...]:
    """All placements in a network of so many blocks, by what they read.

    Args:
        blocks: that have one width.
        kinds: of connections.

    Raises:
        InputError: a kind that is none.

    Example:
        >>> len(placements(12)), len(placements(12, ["usual"])), len(placements(12, ["long-range"]))
        (144, 12, 66)
    """
    wanted = frozenset(_kinds(kinds))
    pairs = (Placement(i, j) for i in range(blocks) for j in range(blocks))
    return tuple(one for one in pairs if one.kind in wanted)


def _kinds(given: Iterable[Kind]) -> tuple[Kind, ...]:
    return tuple(cast("Kind", one_of("kinds", name, KINDS)) for name in names_in("kinds", given))


def placement_bits(blocks: int, adapters: int, kinds: Iterable[Kind] = KINDS) -> float:
    """Bits that name a choice of so many placements: log2 C(L², k) with all kinds.

    Args:
        blocks: that have one width.
        adapters: that are placed, each elsewhere.
        kinds: of connections.

    Raises:
        InputError: there are fewer placements than adapters.

    Example:
        >>> round(placement_bits(12, 2), 3)  # of 144·143/2 choices
        13.33
    """
    return log2_choose(_enough(blocks, adapters, _kinds(kinds)), adapters)


def adapter_weights(width: int, rank: int, adapters: int = 1) -> int:
    """Weights of adapters, without biases: 2·d·r each.

    Args:
        width: d, of the blocks.
        rank: r.
        adapters: how many.

    Example:
        >>> adapter_weights(768, 8)
        12288
    """
    return 2 * width * rank * adapters


def adapter_macs(chosen: Sequence[Placement], width: int, rank: int, passes: int | None = None) -> int:
    """MACs of adapters for each token, the blocks' own left out.

    A recurrent adapter writes at the next pass, so that the blocks run at least twice; the first pass has nothing to add yet.
    All others run in every pass.

    Args:
        chosen: placements.
        width: d, of the blocks.
        rank: r.
        passes: through the network; 2 where an adapter is recurrent, else 1, if left out.

    Raises:
        InputError: there is a recurrent adapter, and only one pass.

    Example:
        >>> adapter_macs([Placement(0, 0), Placement(1, 4)], 768, 8)
        24576
        >>> adapter_macs([Placement(0, 0), Placement(4, 1)], 768, 8)  # the first in both passes, the second in one
        36864
    """
    recurrent = sum(one.kind == "recurrent" for one in chosen)
    passes = passes or (2 if recurrent else 1)
    if recurrent and passes < 2:
        raise InputError(
            f"{recurrent} recurrent adapters write at the next pass, and there is only one; give 2 passes or more."
        )
    return adapter_weights(width, rank) * ((len(chosen) - recurrent) * passes + recurrent * (passes - 1))


def random_placements(
    blocks: int, adapters: int, seed: int, kinds: Iterable[Kind] = KINDS
) -> tuple[Placement, ...]:
    """Choice of placements by lot, all choices equally likely: what a search has to beat.

    Args:
        blocks: that have one width.
        adapters: that are placed, each elsewhere.
        seed: random seed.
        kinds: of connections.

    Raises:
        InputError: there are fewer placements than adapters.
    """
    kinds = tuple(kinds)
    _enough(blocks, adapters, kinds)
    return tuple(sorted(Random(seed).sample(placements(blocks, kinds), adapters)))


def likeliest_placements(scores: Mapping[Placement, float], adapters: int) -> tuple[Placement, ...]:
    """Placements with the highest scores, such as gradient ranks (`iftplan.nn.gradient_ranks`); the first of equals.

    Args:
        scores: of the placements to choose from.
        adapters: that are placed.

    Raises:
        InputError: there are fewer placements than adapters.
    """
    if adapters > len(scores):
        raise InputError(f"{adapters} adapters cannot be placed at {len(scores)} places; place fewer.")
    return tuple(sorted(sorted(scores, key=lambda one: (-scores[one], one))[:adapters]))


def _enough(blocks: int, adapters: int, kinds: tuple[Kind, ...]) -> int:
    """Number of placements, if there are as many as adapters."""
    found = len(placements(blocks, kinds))
    if not 0 <= adapters <= found:
        raise InputError(
            f"{adapters} adapters cannot be placed among {blocks} blocks, which have {found} {' or '.join(kinds)} places; the "
            f"most is {found}."
        )
    return found
