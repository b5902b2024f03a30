"""Attention patterns: which keys a query meets, and how many pairs of a query and a key that are.

Query i stands at position i and key j at position j, both counted from 0, as in torch's `is_causal` and in the mask
functions of FlexAttention.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise
from math import lcm

from iftplan.base.errors import InputError
from iftplan.masks.attention.band import Band
from iftplan.masks.attention.block_map import BlockMap


@dataclass(frozen=True, slots=True)
class TopK:
    """The keys of the highest scores, and how they are found.

    Attributes:
        kept: keys that a query keeps, of those that it can see.
        page: keys that are chosen together by the channels' smallest and largest values, as in Quest (arXiv 2406.10774);
            0 where every key's own score decides.
    """

    kept: int
    page: int = 0

    def __str__(self) -> str:
        return f"top-k:{self.kept}" + (f"/{self.page}" if self.page else "")


@dataclass(frozen=True, slots=True)
class AttentionPattern:
    """Pairs of a query and a key that attention computes: those that lie in all of its parts.

    Attributes:
        band: how far before and after a query its keys may be.
        block: size of the blocks that positions are cut into, each of which sees itself alone; 0 for none.
        stride: distance between the keys of one query; 1 for all.
        blocks: a map of the blocks that are kept; None for all.
        top_k: what each query chooses of the keys that it sees; None for all.
    """

    band: Band = field(default_factory=Band)
    block: int = 0
    stride: int = 1
    blocks: BlockMap | None = None
    top_k: TopK | None = None

    def __str__(self) -> str:
        parts = [
            *([f"block:{self.block}"] if self.block else []),
            *([f"strided:{self.stride}"] if self.stride > 1 else []),
            *([str(self.blocks)] if self.blocks else []),
            *([str(self.top_k)] if self.top_k else []),
            *self.band.parts(),
        ]
        return "+".join(parts) or "full"

    def __and__(self, other: AttentionPattern) -> AttentionPattern:
        """Pattern of the pairs that both have.

        Raises:
            InputError: it has no notation: blocks of two sizes of which neither divides the other, two maps, or two selections.
        """
        sizes = sorted({size for size in (self.block, other.block) if size})
        if len(sizes) == 2 and sizes[1] % sizes[0]:
            raise InputError(
                f"blocks of {sizes[0]} and of {sizes[1]} positions overlap in no pattern of one size. Give one of them, or "
                "sizes of which one divides the other."
            )
        for mine, theirs in ((self.blocks, other.blocks), (self.top_k, other.top_k)):
            if mine and theirs and mine != theirs:
                raise InputError(
                    f"attention patterns {self} and {other} cannot be combined. Give one of them."
                )
        return replace(
            self,
            band=self.band & other.band,
            block=sizes[0] if sizes else 0,
            stride=lcm(self.stride, other.stride),
            blocks=self.blocks or other.blocks,
            top_k=self.top_k or other.top_k,
        )

    def keeps(self, query: int, key: int) -> bool:
        """Whether a query can see a key; with `top_k`, the ones that it chooses from.

        Args:
            query: position of the query.
            key: position of the key.
        """
        return (
            self.band.keeps(query, key)
            and (not self.block or query // self.block == key // self.block)
            and (query - key) % self.stride == 0
            and (self.blocks is None or self.blocks.keeps(query, key))
        )

    def pairs(self, queries: int, keys: int) -> int:
        """Number of pairs whose values are weighted and summed.

        Args:
            queries: number of queries.
            keys: number of keys.

        Raises:
            InputError: a map of blocks is of another size.

        Example:
            >>> from iftplan.masks import parse_attention
            >>> parse_attention("causal").pairs(4, 4), parse_attention("window:2+causal").pairs(4, 4)
            (10, 7)
        """
        return _kept(self, queries, keys)

    def score_pairs(self, queries: int, keys: int) -> int:
        """Number of scores that are computed, those of the selection included.

        A selection by scores computes all that a query sees, and needs none again. One by pages computes two products for
        each page that a query sees a key of, and the scores of the keys that it keeps.

        Args:
            queries: number of queries.
            keys: number of keys.

        Raises:
            InputError: a map of blocks is of another size, or pages are chosen from keys that are not neighbours.
        """
        if self.top_k is None or not self.top_k.page:
            return _kept(replace(self, top_k=None), queries, keys)
        if self.block or self.blocks or self.stride > 1:
            raise InputError(
                f"attention pattern {self}: pages are of neighbouring keys. Combine {self.top_k} with causal or window:W only."
            )
        return self.pairs(queries, keys) + 2 * self.band.pages(self.top_k.page, queries, keys)

    def selection_pairs(self, queries: int, keys: int) -> int:
        """Number of products of a query with a key, or with one end of a page, that only the selection needs.

        Args:
            queries: number of queries.
            keys: number of keys.

        Raises:
            InputError: as `score_pairs`.
        """
        return self.score_pairs(queries, keys) - self.pairs(queries, keys)


def _kept(pattern: AttentionPattern, queries: int, keys: int) -> int:
    """Pairs of a pattern: those of bands, of which blocks and strides make many."""
    if pattern.blocks:
        return _of_map(pattern, pattern.blocks, queries, keys)
    if pattern.block:
        size, inner = pattern.block, replace(pattern, block=0)
        whole = min(queries, keys) // size
        edge = (min(queries - whole * size, size), min(keys - whole * size, size))
        return whole * _kept(inner, size, size) + _kept(inner, *edge)
    if pattern.stride > 1:
        # keys that are a multiple of the stride away lie in the query's own class of remainders, as neighbours
        step = pattern.stride
        inner = replace(pattern, stride=1, band=pattern.band.coarser(step))
        turns = sorted({0, queries % step, keys % step, step})  # between these, classes are of one size
        return sum(
            (end - start) * _kept(inner, -(-(queries - start) // step), -(-(keys - start) // step))
            for start, end in pairwise(turns)
        )
    if not queries or not keys:
        return 0
    if pattern.top_k:
        return pattern.band.capped(pattern.top_k.kept, queries, keys)
    return pattern.band.pairs(queries, keys)


def _of_map(pattern: AttentionPattern, blocks: BlockMap, queries: int, keys: int) -> int:
    """Pairs of a map of blocks, whole or in a band."""
    if pattern.block or pattern.stride > 1:
        raise InputError(
            f"attention pattern {pattern}: a map of blocks combines with causal and window:W only."
        )
    if pattern.top_k is None:
        return blocks.pairs(pattern.band, queries, keys)
    if pattern.band != Band():
        raise InputError(
            f"attention pattern {pattern}: keys are selected from whole blocks. Leave {pattern.top_k} out, or all else but the map."
        )
    return blocks.capped(pattern.top_k.kept, queries, keys)
