"""Attention patterns: which keys a query meets, and how many pairs of a query and a key that are.

Query i stands at position i and key j at position j, both counted from 0, as in torch's `is_causal` and in the mask
functions of FlexAttention.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
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
        if self.top_k is None:
            return _visible(self, queries, keys)
        kept = self.top_k.kept
        return sum(min(kept, seen) for seen in self._seen(queries, keys))

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
            return _visible(self, queries, keys)
        return self.pairs(queries, keys) + 2 * self._pages(self.top_k.page, queries, keys)

    def selection_pairs(self, queries: int, keys: int) -> int:
        """Number of products of a query with a key, or with one end of a page, that only the selection needs.

        Args:
            queries: number of queries.
            keys: number of keys.

        Raises:
            InputError: as `score_pairs`.
        """
        return self.score_pairs(queries, keys) - self.pairs(queries, keys)

    def _pages(self, page: int, queries: int, keys: int) -> int:
        """Number of pages that queries see a key of, all queries together."""
        if self.block or self.blocks or self.stride > 1:
            raise InputError(
                f"attention pattern {self}: pages are of neighbouring keys. Combine {self.top_k} with causal or window:W only."
            )
        rows = (self.band.row(query, keys) for query in range(queries))
        return sum((row[-1] // page - row[0] // page + 1) for row in rows if row)

    def _seen(self, queries: int, keys: int) -> Iterator[int]:
        """Number of keys that each query can see."""
        seen = replace(self, top_k=None)
        total = 0
        for query in range(queries):  # a pattern of the first queries is the pattern of fewer queries
            upto = _visible(seen, query + 1, keys)
            yield upto - total
            total = upto


@lru_cache(maxsize=256)
def _visible(pattern: AttentionPattern, queries: int, keys: int) -> int:
    """Pairs that the parts have in common, without a selection: those of bands, of which blocks and strides make many."""
    if pattern.blocks:
        inner = replace(pattern, blocks=None)
        if inner.block or inner.stride > 1:
            raise InputError(
                f"attention pattern {pattern}: a map of blocks combines with causal, window:W and top-k:K only."
            )
        return pattern.blocks.pairs(inner.band, queries, keys)
    if pattern.block:
        size, inner = pattern.block, replace(pattern, block=0)
        whole = min(queries, keys) // size
        edge = (min(queries - whole * size, size), min(keys - whole * size, size))
        return whole * _visible(inner, size, size) + _visible(inner, *edge)
    if pattern.stride > 1:
        step = pattern.stride
        # keys that are a multiple of the stride away lie in the query's own class of remainders, as neighbours
        band = pattern.band.coarser(step)
        classes = (
            (len(range(r, queries, step)), len(range(r, keys, step))) for r in range(min(step, queries))
        )
        return sum(band.pairs(*sizes) for sizes in classes)
    return pattern.band.pairs(queries, keys)
