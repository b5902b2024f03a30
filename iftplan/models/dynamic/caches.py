"""Bytes of a key-value cache whose entries are pruned: Mustafar's bitmap format (arXiv 2505.22913, its kernels)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from math import comb

from iftplan.base.errors import InputError
from iftplan.models.dynamic.shares import at_least, part


@dataclass(frozen=True, slots=True)
class BitmapTiles:
    """Format of a compressed cache in tiles of consecutive values, each with a bitmap, an offset and its values.

    Attributes:
        tile: values of a tile, one bit of the bitmap each.
        offset_bits: of the place at which a tile's values begin.
        value_bits: of one value.
        padding: stored values of a tile are filled up to a multiple of this; 1 for none.
    """

    tile: int = 64
    offset_bits: int = 32
    value_bits: int = 16
    padding: int = 8

    def tile_bits(self, nonzeros: int) -> int:
        """Bits of a tile with so many values that are kept: 64 + 32 + 16·⌈nnz/8⌉·8.

        Raises:
            InputError: more values than the tile has, or fewer than none.

        Example:
            >>> BitmapTiles().tile_bits(19)
            480
        """
        if not 0 <= nonzeros <= self.tile:
            raise InputError(
                f"a tile of {self.tile} values cannot keep {nonzeros}; it keeps 0 to {self.tile}."
            )
        stored = -(-nonzeros // self.padding) * self.padding
        return self.tile + self.offset_bits + self.value_bits * stored

    @property
    def dense_bits(self) -> int:
        """Bits of a tile that is not compressed."""
        return self.tile * self.value_bits


MUSTAFAR = BitmapTiles()
"""The format of Mustafar's kernels: 64 values of 16 bits, padded to 8."""


def cache_bits(nonzeros: Iterable[int], tiles: BitmapTiles = MUSTAFAR) -> int:
    """Bits of a compressed cache, from the values that each of its tiles keeps."""
    return sum(map(tiles.tile_bits, nonzeros))


def kept_values(head_size: int, sparsity: Fraction) -> int:
    """Values of a token's key, or value, in one head that per-token pruning keeps: (1 - s)·size, rounded to the nearest.

    Raises:
        InputError: the sparsity is outside [0, 1].
    """
    return round((1 - part("sparsity", sparsity)) * head_size)


def expected_share(head_size: int, kept: int, tiles: BitmapTiles = MUSTAFAR) -> Fraction:
    """Size of a pruned cache over that of the dense one, expected where the kept values lie anywhere in a head.

    A token keeps the same number of values in every head, and a head is one or more tiles, so the number in a tile is
    hypergeometric; the padding is not linear in it, and the expectation is taken exactly.

    Args:
        head_size: values of a token in one head; a multiple of the tile.
        kept: of them that are kept, as `kept_values` has them.
        tiles: the format.

    Raises:
        InputError: a head is not made of whole tiles, or keeps more values than it has.

    Example:
        Mustafar's abstract: a cache of 70 % sparsity is compressed to 45 % of the dense one.

        >>> round(float(expected_share(128, kept_values(128, Fraction("0.7")))), 4)
        0.4499
    """
    at_least("head_size", head_size, tiles.tile)
    if head_size % tiles.tile:
        nearest = head_size // tiles.tile * tiles.tile
        raise InputError(
            f"a head of {head_size} values is not made of tiles of {tiles.tile} (nearest: {nearest})."
        )
    if not 0 <= kept <= head_size:
        raise InputError(f"a head of {head_size} values cannot keep {kept}; it keeps 0 to {head_size}.")
    ways = comb(head_size, kept)
    fewest, most = max(0, kept - (head_size - tiles.tile)), min(kept, tiles.tile)
    bits = sum(
        comb(tiles.tile, n) * comb(head_size - tiles.tile, kept - n) * tiles.tile_bits(n)
        for n in range(fewest, most + 1)
    )
    return Fraction(bits, ways * tiles.dense_bits)


def cache_bytes(layers: int, key_value_heads: int, head_size: int, tokens: int, value_bits: int = 16) -> int:
    """Bytes of the dense keys and values of a sequence.

    Args:
        layers: with attention.
        key_value_heads: heads of keys; fewer than those of queries where queries are grouped.
        head_size: values of a token in one head.
        tokens: of the sequence.
        value_bits: of one value.

    Example:
        LLaMA-2 7B at 4 096 tokens:

        >>> cache_bytes(32, 32, 128, 4096)
        2147483648
    """
    return 2 * layers * key_value_heads * head_size * tokens * value_bits // 8
