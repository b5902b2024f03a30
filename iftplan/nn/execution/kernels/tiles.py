"""Which pixels a tile computes and which ones it reads: tables that kernels follow, made once for each size of image.

A tile is `count` vectors of targets at most. A chain of positions reads vectors too, as many and its span.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from iftplan.nn.execution.kernels.chains import Chains
from iftplan.nn.execution.kernels.windows import ConvolutionWindows

Numbers = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Tiles:
    """Pixels are numbered through all images; -1 stands for one that is not there.

    Attributes:
        targets: (tiles, count, lanes) of those that are computed.
        depths: vectors that hold any, for each tile.
        sources: (tiles, vectors of all chains, lanes) of those that are read.
        there: (tiles, chains), whether a chain reads anything.
    """

    targets: NDArray[np.int32]
    depths: NDArray[np.int64]
    sources: NDArray[np.int32]
    there: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.depths)


@dataclass(frozen=True, slots=True, eq=False)
class _Columns:
    """Targets of tiles of one depth: image (-1: none), row and column of each lane of each vector."""

    image: Numbers
    row: Numbers
    column: Numbers
    depth: int


@lru_cache(maxsize=64)
def tiles_of(windows: ConvolutionWindows, chains: Chains, lanes: int, count: int) -> Tiles:
    """Tables of the pixels that a sweep computes and reads, tile by tile.

    Where the sweep divides (gradients of strided convolutions), pixels that share their remainders come together:
    whole tiles then have nothing to read at the other positions, and these are passed over.

    Args:
        windows: the sweep.
        chains: of its kernel.
        lanes: of a vector.
        count: vectors of a tile.
    """
    lay = _anyhow if chains.plain else _below_each_other
    rows, columns = windows.target
    parts = [
        part
        for y in range(windows.division[0])
        for x in range(windows.division[1])
        for part in lay(
            windows.images,
            np.arange(y, rows, windows.division[0]),
            np.arange(x, columns, windows.division[1]),
            lanes,
            count,
        )
    ]
    sources = np.concatenate([_sources(part, windows, chains, count) for part in parts])
    starts = chains.vectors(count)[:-1]
    return Tiles(
        np.concatenate([_targets(part, windows) for part in parts]),
        np.concatenate([np.full(len(part.image), part.depth) for part in parts]),
        sources,
        np.ascontiguousarray(np.logical_or.reduceat((sources >= 0).any(2), starts, axis=1)),
    )


def _anyhow(images: int, rows: Numbers, columns: Numbers, lanes: int, count: int) -> list[_Columns]:
    """All pixels in a row, spread evenly over as few tiles as can be."""
    pixels = [a.ravel() for a in np.meshgrid(np.arange(images), rows, columns, indexing="ij")]
    vectors = -(-len(pixels[0]) // lanes)
    whole = [_filled(a, vectors * lanes).reshape(vectors, lanes) for a in pixels]
    found, start = [], 0
    for depth, tiles in _even(vectors, count):
        end = start + depth * tiles
        image, row, column = (_filled(a[start:end].reshape(tiles, depth, lanes), count, 1) for a in whole)
        found.append(_Columns(image, row, column, depth))
        start = end
    return found


def _below_each_other(images: int, rows: Numbers, columns: Numbers, lanes: int, count: int) -> list[_Columns]:
    """Vectors of a tile hold the same columns of neighbouring rows."""
    found, start = [], 0
    for depth, groups in _even(len(rows), count):
        first = rows[start : start + depth * groups : depth]
        pixels = [a.ravel() for a in np.meshgrid(np.arange(images), first, columns, indexing="ij")]
        size = -(-len(pixels[0]) // lanes) * lanes
        image, row, column = (np.repeat(_filled(a, size).reshape(-1, 1, lanes), count, 1) for a in pixels)
        apart = rows[1] - rows[0] if len(rows) > 1 else 1
        found.append(_Columns(image, row + apart * np.arange(count).reshape(1, -1, 1), column, depth))
        start += depth * groups
    return found


def _even(things: int, most: int) -> list[tuple[int, int]]:
    """Sizes of parts, the largest first, and how many there are of each; no part is larger than `most`."""
    parts = -(-things // most)
    if not parts:
        return []
    small, larger = divmod(things, parts)
    return [(size, many) for size, many in ((small + 1, larger), (small, parts - larger)) if many]


def _filled(array: Numbers, size: int, axis: int = 0) -> Numbers:
    """With -1 up to a size."""
    widths = [(0, size - n if i == axis else 0) for i, n in enumerate(array.shape)]
    return np.pad(array, widths, constant_values=-1)


def _targets(part: _Columns, windows: ConvolutionWindows) -> NDArray[np.int32]:
    rows, columns = windows.target
    pixels = (part.image * rows + part.row) * columns + part.column
    held = (part.image >= 0) & (np.arange(part.image.shape[1]) < part.depth).reshape(1, -1, 1)
    return np.where(held, pixels, -1).astype(np.int32)


def _sources(part: _Columns, windows: ConvolutionWindows, chains: Chains, count: int) -> NDArray[np.int32]:
    """What each vector of each chain reads: as the first position of the chain does, rows further down included."""
    rows, columns = windows.source
    found = []
    for chain in chains.chains:
        image, row, column = part.image, part.row, part.column
        if chain.span:
            apart = windows.division[0] * np.arange(count + chain.span).reshape(1, -1, 1)
            image, column = (np.repeat(a[:, :1], count + chain.span, 1) for a in (image, column))
            row = row[:, :1] + apart
        r, s = divmod(chain.first, windows.kernel[1])
        y, y_left = np.divmod(
            row * windows.scale[0] + r * windows.step[0] + windows.shift[0], windows.division[0]
        )
        x, x_left = np.divmod(
            column * windows.scale[1] + s * windows.step[1] + windows.shift[1], windows.division[1]
        )
        inside = (image >= 0) & (y_left == 0) & (x_left == 0)
        inside &= (y >= 0) & (y < rows) & (x >= 0) & (x < columns)
        found.append(np.where(inside, (image * rows + y) * columns + x, -1))
    return np.concatenate(found, 1).astype(np.int32)
