"""Masks as few bytes: of rows of units, which of them are kept.

- `bits`: one bit for each unit.
- `gaps`: for each kept unit, one byte with the number of units left out before it; 255 stands for 255 of them, and more
  follows. Smaller than bits where less than about an eighth is kept.
- `ranks`: where every row keeps `k` of `n` units, the number of its choice among all C(n, k), in the combinatorial
  number system (2:4 takes 3 bits for four weights instead of 4). Choices are ordered by their last unit first.

Bits fill bytes from the lowest on.
"""

from __future__ import annotations

from math import comb
from typing import Final, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Code = Literal["bits", "gaps", "ranks"]
CODES: Final[tuple[Code, ...]] = get_args(Code)
_WIDEST: Final = 62  # bits of a rank
_FAR: Final = 255


def smallest_code(units: Tensor) -> tuple[Code, Tensor]:
    """The code that takes the fewest bytes, and the bytes.

    Args:
        units: boolean (rows, units of a row).
    """
    flat = units.numpy().reshape(-1)
    sizes: dict[Code, int] = {"bits": -(-len(flat) // 8)}
    kept = kept_of_each(units)
    if kept is not None and (width := _rank_bits(units.shape[1], kept)) is not None:
        sizes["ranks"] = -(-len(units) * width // 8)
    if np.count_nonzero(flat) < min(sizes.values()):
        gaps = np.diff(np.flatnonzero(flat), prepend=-1) - 1
        sizes["gaps"] = len(gaps) + int((gaps // _FAR).sum())
    code = min(sizes, key=lambda name: (sizes[name], CODES.index(name)))
    return code, encode(units, code)


def kept_of_each(units: Tensor) -> int | None:
    """Units that every row keeps; None where rows differ."""
    counts = units.sum(1)
    return int(counts[0]) if len(counts) and bool((counts == counts[0]).all()) else None


def encode(units: Tensor, code: Code) -> Tensor:
    """Bytes of a choice of units.

    Args:
        units: boolean (rows, units of a row).
        code: one that it has: ranks need equally many units in every row.
    """
    match code:
        case "bits":
            found = np.packbits(units.numpy().reshape(-1), bitorder="little")
        case "gaps":
            found = _gaps(np.diff(np.flatnonzero(units.numpy().reshape(-1)), prepend=-1) - 1)
        case "ranks":
            found = _ranks(units.numpy())
    return torch.from_numpy(found)


def decode(content: Tensor, code: Code, rows: int, size: int, kept: int | None) -> Tensor:
    """Choice of units, boolean (rows, size): the inverse of `encode`.

    Args:
        content: bytes.
        code: that they are in.
        rows: of units.
        size: units of a row.
        kept: of each row, for ranks.

    Raises:
        ValueError: says why the bytes are of no such choice.
    """
    held, count = content.numpy(), rows * size
    match code:
        case "bits":
            _check_length(held, count)
            bits = np.unpackbits(held, bitorder="little")
            _check_rest(bits, count)
            return torch.from_numpy(bits[:count].astype(bool)).view(rows, size)
        case "gaps":
            found = np.zeros(count, bool)
            steps = np.where(held == _FAR, _FAR, held.astype(np.int64) + 1)
            places = (np.cumsum(steps) - 1)[held != _FAR]
            if len(places) and places[-1] >= count:
                raise ValueError(f"its gaps lead to unit {places[-1]} of {count}")
            found[places] = True
            return torch.from_numpy(found).view(rows, size)
        case "ranks":
            return torch.from_numpy(_from_ranks(held, rows, size, kept))


def _gaps(gaps: NDArray[np.int64]) -> NDArray[np.uint8]:
    far, rest = np.divmod(gaps, _FAR)
    ends = np.cumsum(far + 1)
    found = np.full(int(ends[-1]) if len(ends) else 0, _FAR, np.uint8)
    found[ends - 1] = rest
    return found


def _rank_bits(size: int, kept: int) -> int | None:
    """Bits of a rank; None where they are too many to reckon with, or there is only one choice in a long row."""
    width = (comb(size, kept) - 1).bit_length() if size <= _WIDEST + 2 else _WIDEST + 1
    return width if width <= _WIDEST else None


def _binomials(size: int, kept: int) -> NDArray[np.int64]:
    """C(position, number), of which a rank is the sum over a row's kept units."""
    return np.array([[comb(at, number) for number in range(kept + 1)] for at in range(size)], np.int64)


def _ranks(units: NDArray[np.bool_]) -> NDArray[np.uint8]:
    rows, size = units.shape
    kept = int(units[0].sum()) if rows else 0
    width = _rank_bits(size, kept)
    assert width is not None
    table, number, ranks = _binomials(size, kept), np.zeros(rows, np.int64), np.zeros(rows, np.int64)
    for at in range(size):
        number += units[:, at]
        ranks += np.where(units[:, at], table[at][number], 0)
    bits = (ranks[:, None] >> np.arange(width)) & 1
    return np.packbits(bits.astype(np.uint8).reshape(-1), bitorder="little")


def _from_ranks(held: NDArray[np.uint8], rows: int, size: int, kept: int | None) -> NDArray[np.bool_]:
    width = _rank_bits(size, kept) if kept is not None and 0 <= kept <= size else None
    if kept is None or width is None:
        raise ValueError(f"{kept} of {size} units is no choice that ranks number")
    _check_length(held, rows * width)
    bits = np.unpackbits(held, bitorder="little")
    _check_rest(bits, rows * width)
    ranks = bits[: rows * width].reshape(rows, width).astype(np.int64) @ (
        1 << np.arange(width, dtype=np.int64)
    )
    if rows and ranks.max(initial=0) >= comb(size, kept):
        raise ValueError(f"it has choice {ranks.max()} of {comb(size, kept)}")
    found, table = np.zeros((rows, size), bool), _binomials(size, kept)
    left = np.full(rows, kept, np.int64)
    for at in reversed(range(size)):
        least = table[at][left]
        found[:, at] = (left > 0) & (ranks >= least)
        ranks -= np.where(found[:, at], least, 0)
        left -= found[:, at]
    return found


def _check_length(held: NDArray[np.uint8], bits: int) -> None:
    if len(held) != -(-bits // 8):
        raise ValueError(f"it has {len(held)} bytes where {-(-bits // 8)} are needed")


def _check_rest(bits: NDArray[np.uint8], count: int) -> None:
    if bits[count:].any():
        raise ValueError("bits are set behind its end")
