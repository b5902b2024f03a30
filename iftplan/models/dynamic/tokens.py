"""Cost of a decoder in which tokens skip blocks (FTP, arXiv 2412.11494)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction

from iftplan.base.errors import InputError
from iftplan.models.dynamic.shares import part


class Skipped(StrEnum):
    """Part of attention that a token is left out of where it skips a block."""

    QUERIES = "queries"
    KEYS = "queries and keys"


@dataclass(frozen=True, slots=True)
class TokenBlock:
    """MACs of a transformer block for one sequence, every token computed.

    Attributes:
        matrices: of the projections and the MLP, for all tokens.
        attention: of the two products of attention, for all pairs of tokens.
        router_inputs: features of a token that a router decides by; 0 where there is none. FTP has 4.
        tokens: tokens of the sequence, which only the router's cost depends on.
    """

    matrices: int
    attention: int
    router_inputs: int = 0
    tokens: int = 0

    @property
    def router(self) -> int:
        """MACs of a linear router with one output."""
        return self.router_inputs * self.tokens


def pruned_macs(
    blocks: Sequence[TokenBlock], sparsities: Sequence[Fraction], skipped: Skipped = Skipped.QUERIES
) -> Fraction:
    """MACs of all blocks where a share of the tokens skips each of them.

    A block costs (1 - s)·matrices and (1 - s)·attention where tokens that skip it still serve as keys, or (1 - s)²·attention
    where they do not; its router looks at all tokens.

    Args:
        blocks: the blocks, dense.
        sparsities: share of tokens that skip each block, in [0, 1].
        skipped: what of attention they are left out of.

    Raises:
        InputError: a sparsity outside [0, 1], or not one for each block.

    Example:
        >>> block = TokenBlock(matrices=800, attention=200)
        >>> print(pruned_macs([block, block], [Fraction(0), Fraction(1, 2)]))
        1500
        >>> print(pruned_macs([block, block], [Fraction(0), Fraction(1, 2)], Skipped.KEYS))
        1450
    """
    if len(blocks) != len(sparsities):
        raise InputError(
            f"there are {len(sparsities)} sparsities for {len(blocks)} blocks; give one for each block."
        )
    total = Fraction(0)
    for block, sparsity in zip(blocks, sparsities, strict=True):
        kept = 1 - part("sparsity", sparsity)
        pairs = kept if skipped is Skipped.QUERIES else kept * kept
        total += kept * block.matrices + pairs * block.attention + block.router
    return total
