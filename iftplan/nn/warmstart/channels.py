"""The channels of every tensor of a forward pass, as they are found operator by operator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from iftplan.nn.warmstart.lockstep import Call, Lockstep, Value
from iftplan.nn.warmstart.replicas import Channels, Size, UnmatchedError

Slot = tuple[str, int]
"""A parameter and one of its dimensions."""


@dataclass(frozen=True, slots=True)
class Dim:
    """One dimension of a tensor; `slot` where it is, in the same order, one of a parameter's."""

    channels: Channels
    slot: Slot | None = None


Dims = list[Dim]


@dataclass(frozen=True, slots=True)
class Sum:
    """A contraction over channels that grow.

    Attributes:
        call: its place among the calls.
        operand: the activation, and its dimension.
        channels: what is summed over.
        slot: the weight's dimension; None between two activations.
        repeats: how often these channels come one after the other in the slot (groups).
    """

    call: int
    operand: Value
    axis: int
    channels: Channels
    slot: Slot | None = None
    repeats: Size = (1, 1)


@dataclass(frozen=True, slots=True)
class Followed:
    """The channels of every tensor, and where replicas change a value.

    Attributes:
        sums: contractions, which see every replica.
        scalings: (call, tensor, factor) where the wide model multiplies by another constant.
        averages: (module, channels) of means and variances, which stay where all have as many replicas.
        kept: parameters' dimensions that some operator does not sum over.
    """

    run: Lockstep
    dims: dict[Value, Dims] = field(default_factory=dict)
    sums: list[Sum] = field(default_factory=list)
    scalings: list[tuple[int, Value, float]] = field(default_factory=list)
    averages: list[tuple[str, Channels]] = field(default_factory=list)
    kept: set[Slot] = field(default_factory=set)

    def of(self, value: Value | None) -> Dims:
        """The dimensions of a tensor; none of none.

        Raises:
            UnmatchedError: a tensor that is no parameter has another size in the wide model.
        """
        if value is None:
            return []
        if value not in self.dims:
            if any(d != w for d, w in self.run.sizes[value]):
                raise UnmatchedError("a tensor that is no parameter changes its size")
            self.dims[value] = fixed_dims(self.run.sizes[value])
        return self.dims[value]

    def grows(self, value: Value) -> bool:
        """Whether one of its dimensions does."""
        return any(d != w for d, w in self.run.sizes[value])

    def keep(self, *dims: Dim) -> None:
        """Note that these dimensions are not summed over in this place."""
        self.kept.update(dim.slot for dim in dims if dim.slot)


Rule = Callable[[Followed, Call, int], list[Dims]]
"""What an operator says: (what was found, the call, its place) → the dimensions of its outputs."""


def constants(call: Call) -> list[tuple[str, float, float]]:
    """Numbers in a call that differ between the models; whole ones are sizes, unless it is elementwise."""
    kinds = int | float if torch.Tag.pointwise in call.function.tags else float
    pairs = ((name, x, call.wide.get(name)) for name, x in call.dense.items())
    return [(n, x, y) for n, x, y in pairs if isinstance(x, kinds) and isinstance(y, kinds) and x != y]


def fixed_dims(sizes: Sequence[Size]) -> Dims:
    """Dimensions that have one size in both models.

    Raises:
        UnmatchedError: the wide model has another size.
    """
    if any(d != w for d, w in sizes):
        raise UnmatchedError("a dimension without channels grows")
    return [Dim(Channels(size)) for size in sizes]
