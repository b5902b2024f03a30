"""A masked weight as the kernels take it."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from iftplan.base.errors import InputError
from iftplan.nn.execution.kernels.chains import Chains
from iftplan.nn.execution.kernels.registers import ROWS, Vectors

_ROW_BLOCK: Final = 2560  # outputs whose tile stays in the second-level cache


class Addresses(dict[Any, Any]):
    """Records that name arrays by their addresses, kept beside these. A copy begins with none, for its arrays lie elsewhere."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Addresses:
        return Addresses()

    def __reduce__(self) -> tuple[type[Addresses], tuple[()]]:
        return Addresses, ()


@dataclass(frozen=True, slots=True, eq=False)
class MaskFormat:
    """A mask, packed: where each kept weight is found, and in which order kernels meet it.

    Attributes:
        vectors: the kernel that it is packed for.
        chains: positions of the window that are read together.
        outputs: rows of the matrix.
        channels: columns of the matrix at each position of the window.
        shared: whether four neighbouring rows share their columns (blocks of 4 outputs).
        row_starts: first rows of the row blocks, and the end.
        blocks: chain, first and last channel, and vectors of the chain, of each column block.
        panels: row block, column block, first and last quad, first step.
        counts: steps of each quad.
        rows: of each quad, in bytes of a tile, and of one behind the last.
        offsets: of the vectors that each step reads, in units of eight bytes.
        places: of each value in the flat matrix, -1 where a quad is padded.
        sweeps: of the mask over windows, as kernels are told; empty in a copy.
    """

    vectors: Vectors
    chains: Chains
    outputs: int
    channels: int
    shared: bool
    row_starts: NDArray[np.int64]
    blocks: NDArray[np.int64]
    panels: NDArray[np.int64]
    counts: NDArray[np.int64]
    rows: NDArray[np.int64]
    offsets: NDArray[np.uint16]
    places: NDArray[np.int32]
    sweeps: Addresses = field(default_factory=Addresses, init=False, repr=False)

    @property
    def positions(self) -> int:
        """Number of positions of the window, its height times its width."""
        return self.chains.kernel[0] * self.chains.kernel[1]

    @property
    def slots(self) -> int:
        """Number of values in the kernels' order, those of padding among them."""
        return len(self.places)

    def values(self, weights: NDArray[Any], threads: int = 1) -> NDArray[Any]:
        """The kept weights of a flat matrix, in the kernels' order."""
        from iftplan.nn.execution.kernels.copies import take

        return take(weights, self.places, threads)

    def matrix(self, values: NDArray[Any]) -> NDArray[Any]:
        """Values in the kernels' order as the flat matrix, zero elsewhere."""
        weights = np.zeros(self.outputs * self.positions * self.channels, values.dtype)
        held = self.places >= 0
        weights[self.places[held]] = values[held]
        return weights


def pack_mask(mask: NDArray[np.bool_], chains: Chains, vectors: Vectors) -> MaskFormat:
    """A mask in the kernels' order.

    Args:
        mask: outputs × (positions · channels), channels running fastest.
        chains: of the window.
        vectors: the kernel.

    Raises:
        InputError: it has more entries than 31 bits can number.
    """
    from iftplan.nn.execution.kernels.packing import count_steps, fill

    outputs, inputs = mask.shape
    if mask.size >= 2**31:
        raise InputError(
            f"a weight of {outputs}×{inputs} has more than 2^31 entries, the most that sparse execution can "
            "index; keep this layer dense."
        )
    bits = np.ascontiguousarray(mask).view(np.uint8)
    shared = outputs % ROWS == 0 and _shared(bits)
    channels = inputs // (chains.kernel[0] * chains.kernel[1])
    starts, blocks = _row_starts(outputs), _column_blocks(chains, channels, vectors)
    members = np.array(
        [(n, *pair) for n, c in enumerate(chains.chains) for pair in zip(c.positions, c.ahead, strict=True)],
        np.int64,
    )
    walk = bits, starts, blocks, members, channels, shared
    quads, steps = count_steps(*walk)
    panels = np.zeros(((len(starts) - 1) * len(blocks), 5), np.int64)
    # one quad of rows more than there are: kernels look ahead to the outputs of the next
    counts, rows = np.zeros(quads, np.int64), np.zeros((quads + 1) * ROWS, np.int64)
    offsets = np.zeros(steps * (1 if shared else ROWS), np.uint16)
    places = np.full(steps * ROWS, -1, np.int32)
    fill(*walk, vectors.row_bytes, vectors.bytes, panels, counts, rows, offsets, places)
    return MaskFormat(
        vectors, chains, outputs, channels, shared, starts, blocks, panels, counts, rows, offsets, places
    )


def transpose_format(mask: NDArray[np.bool_], chains: Chains, forward: MaskFormat) -> MaskFormat:
    """The mask of the input's gradient, whose values are taken from those of the forward format.

    Its `places` are slots of `forward`, so that weights are collected from what is compact already.

    Args:
        mask: outputs × (positions · channels), as it was packed.
        chains: of the window, backwards.
        forward: what it was packed to.
    """
    outputs, positions, channels = forward.outputs, forward.positions, forward.channels
    three = mask.reshape(outputs, positions, channels).transpose(2, 1, 0)
    found = pack_mask(np.ascontiguousarray(three).reshape(channels, -1), chains, forward.vectors)
    slots = np.full(mask.size, -1, np.int32)
    held = forward.places >= 0
    slots[forward.places[held]] = np.nonzero(held)[0]
    there = found.places >= 0
    row, rest = np.divmod(found.places[there], positions * outputs)
    position, column = np.divmod(rest, outputs)
    found.places[there] = slots[(column.astype(np.int64) * positions + position) * channels + row]
    return found


def _shared(mask: NDArray[np.uint8]) -> bool:
    four = mask.reshape(-1, ROWS, mask.shape[1])
    return bool((four[:, 1:] == four[:, :1]).all())


def _row_starts(outputs: int) -> NDArray[np.int64]:
    parts = -(-outputs // _ROW_BLOCK)
    size = -(-outputs // parts)
    size += -size % ROWS  # blocks of four are not cut
    return np.array([*range(0, outputs, size), outputs], np.int64)


def _column_blocks(chains: Chains, channels: int, vectors: Vectors) -> NDArray[np.int64]:
    """Chains, and channels evenly cut so that what is gathered of them stays in the first-level cache."""
    found = []
    for number, chain in enumerate(chains.chains):
        wide = vectors.count + chain.span
        parts = -(-channels // vectors.block(wide))
        cuts = [channels * i // parts for i in range(parts + 1)]
        found += [(number, a, b, wide) for a, b in pairwise(cuts)]
    return np.array(found, np.int64)
