"""What a piece of a jaxpr costs, as a value: pieces are added up, and multiplied by how often they run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from iftplan.models.spec import Kind


@dataclass(frozen=True, slots=True)
class Site:
    """Part of a model whose products are added up.

    Attributes:
        module: dotted names that the code was traced under; of a weight, its path without the last name.
        operator: name of the primitive.
        weight: name of the argument that is an operand, "" for a product of activations.
    """

    module: str
    operator: str
    weight: str = ""


@dataclass(frozen=True, slots=True)
class WeightShape:
    """Use of a weight by a product: a layer without its name and its positions.

    Attributes:
        kind: linear, or a convolution.
        in_channels: C_in, of all groups.
        out_channels: C_out.
        kernel: spatial size; empty for linear layers.
        groups: of a convolution.
    """

    kind: Kind
    in_channels: int
    out_channels: int
    kernel: tuple[int, ...] = ()
    groups: int = 1


@dataclass(frozen=True, slots=True)
class Use:
    """Products of one site.

    Attributes:
        macs: multiply-accumulates of all calls.
        calls: how many calls were added up.
        shape: of the weight where it is first used; None for a product of activations.
        first: whether the other operand is made of the model's inputs without another weight.
    """

    macs: int
    calls: int = 1
    shape: WeightShape | None = None
    first: bool = False

    def __add__(self, other: Use) -> Use:
        shape = (
            self.shape if self.macs else other.shape or self.shape
        )  # a lookup's table, where it multiplies too
        return Use(self.macs + other.macs, self.calls + other.calls, shape, self.first or other.first)


@dataclass(frozen=True, slots=True)
class Tally:
    """Costs of some equations.

    Attributes:
        uses: site → products.
        elementwise: primitive → output elements of work without products.
        unknown: primitive → calls whose cost is not known.
        assumptions: sentences.
    """

    uses: Mapping[Site, Use] = field(default_factory=dict)
    elementwise: Mapping[str, int] = field(default_factory=dict)
    unknown: Mapping[str, int] = field(default_factory=dict)
    assumptions: tuple[str, ...] = ()

    @property
    def macs(self) -> int:
        """All multiply-accumulates."""
        return sum(use.macs for use in self.uses.values())

    def times(self, runs: int) -> Tally:
        """Costs of so many runs; of none, nothing."""
        if runs == 1:
            return self
        if runs == 0:
            return Tally()
        return Tally(
            {site: replace(u, macs=u.macs * runs, calls=u.calls * runs) for site, u in self.uses.items()},
            {name: n * runs for name, n in self.elementwise.items()},
            {name: n * runs for name, n in self.unknown.items()},
            self.assumptions,
        )


def total(tallies: Iterable[Tally]) -> Tally:
    """Sum of tallies, sites in the order in which they come first."""
    uses: dict[Site, Use] = {}
    elementwise: dict[str, int] = {}
    unknown: dict[str, int] = {}
    assumptions: dict[str, None] = {}
    for tally in tallies:
        for site, use in tally.uses.items():
            uses[site] = uses[site] + use if site in uses else use
        for name, n in tally.elementwise.items():
            elementwise[name] = elementwise.get(name, 0) + n
        for name, n in tally.unknown.items():
            unknown[name] = unknown.get(name, 0) + n
        assumptions.update(dict.fromkeys(tally.assumptions))
    return Tally(uses, elementwise, unknown, tuple(assumptions))
