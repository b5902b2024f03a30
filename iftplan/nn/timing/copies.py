"""A layer's copies, timed in turn: what its weights take when they come from beyond the second-level cache.

A network that computes few columns, as when a language model writes one token after the other, reads each weight once and
all others before it reads that one again. The same layer timed again and again has its weights at hand instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from typing import Final

from iftplan.nn.timing.work import Candidates, Elsewhere, Work
from iftplan.plans.speed.timings import LayerPair

_BYTES: Final = 2**24
"""Of the copies' dense weights together, several times what a core's own caches hold."""

_MOST: Final = 16
"""Copies; the weights of small layers take little of their time."""

_COLUMNS: Final = 64
"""More columns than these use a weight so often that reading it takes little of the time."""


def copies_of(pair: LayerPair, batch: int) -> int:
    """The number of copies of a layer that are timed in turn: 1 where many columns use each weight.

    Args:
        pair: the layer.
        batch: samples.

    Example:
        >>> from fractions import Fraction
        >>> from iftplan.masks import Unstructured
        >>> from iftplan.plans.speed.timings import pair_of_layer
        >>> names = ("linear:1024-1024@1", "linear:1024-1024@512", "linear:2048-4096@1")
        >>> [copies_of(pair_of_layer(name, Fraction(1, 2), Unstructured()), 1) for name in names]
        [4, 1, 1]
    """
    if batch * pair.dense.positions > _COLUMNS:
        return 1
    return max(1, min(_MOST, -(-_BYTES // (4 * pair.dense.weights))))


def in_turn(copies: Sequence[Candidates]) -> Candidates:
    """Candidates whose every run is that of the next copy; each copy has run once.

    Args:
        copies: of one layer in the same backends, each with its own mask and values.
    """
    first, *others = copies
    if others:
        for name in first.work:
            first.work[name] = _turning([copy.work[name] for copy in copies])
    return first


def _turning(runs: Sequence[Work | Elsewhere]) -> Work:
    here = [run for run in runs if not isinstance(run, Elsewhere)]
    for run in here:
        run()
    turn = cycle(here)
    return lambda: next(turn)()
