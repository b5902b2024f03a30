"""Kept values in a dense weight, in whatever order its memory has: collected from it, and back as a gradient of its size."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import Any
from weakref import ref

import numpy as np
from numpy.typing import NDArray

from iftplan.nn.execution.kernels.formats import MaskFormat

Strides = tuple[int, ...]


@dataclass(slots=True, eq=False)
class Memory:
    """Places of a format's values in the memory of a dense weight.

    Attributes:
        places: of each value, -1 where a quad is padded.
        starts: first kept value of each line of memory, and the end.
        columns: of each kept value in its line, in the order of memory.
        slots: of each of them in the format.
        line: entries of a line.
    """

    places: NDArray[np.int32]
    starts: NDArray[np.int64]
    columns: NDArray[np.int32]
    slots: NDArray[np.int32]
    line: int
    _room: NDArray[Any] | None = field(default=None, repr=False)
    _lent: ref[NDArray[Any]] | None = field(default=None, repr=False)

    def __reduce__(self) -> tuple[Any, ...]:
        # a copy has room of its own
        return Memory, (self.places, self.starts, self.columns, self.slots, self.line)

    def values(self, weights: NDArray[Any], threads: int = 1) -> NDArray[Any]:
        """Kept values of a weight's memory, in the format's order."""
        from iftplan.nn.execution.kernels.copies import take

        return take(weights, self.places, threads)

    def weights(self, values: NDArray[Any], threads: int = 1) -> NDArray[Any]:
        """Values in the format's order as a weight's memory, zero elsewhere.

        It is used again as soon as nothing holds it any longer: pages of a fresh one would cost more than the values.
        Every entry is written, as others may have changed what they were lent.
        """
        from iftplan.nn.execution.kernels.copies import put_lines

        held = self._lent() if self._lent is not None else None
        if held is not None or self._room is None or self._room.dtype != values.dtype:
            self._room = np.empty((len(self.starts) - 1) * self.line, values.dtype)
        weights = self._room.view()
        self._lent = ref(weights)
        put_lines(weights, values, self.starts, self.columns, self.slots, threads)
        return weights


def memory_of(packed: MaskFormat, strides: Strides) -> Memory:
    """Places of a format's values in a weight of certain strides, dense in memory.

    Args:
        packed: the mask.
        strides: of the weight (outputs, inputs) or (outputs, inputs, height, width), in entries.
    """
    outputs, channels, (height, width) = packed.outputs, packed.channels, packed.chains.kernel
    there = packed.places >= 0
    output, rest = np.divmod(packed.places[there].astype(np.int64), packed.positions * channels)
    position, channel = np.divmod(rest, channels)
    at = output * strides[0] + channel * strides[1]
    if len(strides) == 4:
        at += position // width * strides[2] + position % width * strides[3]
    places = np.full(packed.slots, -1, np.int32)
    places[there] = at
    order = np.argsort(at, kind="stable")
    sizes = (outputs, channels, height, width)
    line = max((stride for stride, size in zip(strides, sizes, strict=False) if size > 1), default=1)
    counts = np.bincount(at // line, minlength=prod(sizes) // line)
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    slots = np.flatnonzero(there).astype(np.int32)[order]
    return Memory(places, starts, (at[order] % line).astype(np.int32), slots, line)
