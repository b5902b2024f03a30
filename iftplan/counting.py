"""Count tables: what one engine saw in one forward pass, in contraction MACs.

Three lists are kept apart (facts that differ must not look alike): contractions with a known cost,
other work that costs no contraction MACs, and operators whose cost is unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Contraction:
    """The MACs of one operator in one module (all its calls added up).

    Attributes:
        module: dotted path of the innermost module that was running; "" is the model itself.
        operator: the operator's plain name: linear, conv2d, matmul, attention, addmm …
        macs: multiply-accumulates of all calls, as if every weight were dense.
        weight: qualified name of the parameter that was an operand, or None for a product of
            activations. A tied parameter has the first of its names.
        calls: how many calls were added up.
    """

    module: str
    operator: str
    macs: int
    weight: str | None = None
    calls: int = 1


@dataclass(frozen=True, slots=True)
class CountTable:
    """What one engine counted.

    Attributes:
        engine: "meta", "fvcore" or "flop_counter".
        contractions: known costs.
        elementwise: operator → number of output elements, for norms, activations, pooling and other
            work without contraction MACs; never added to MACs.
        unknown: operator → calls, for operators that may contract but have no formula.
        uncalled: modules that hold parameters of which no operator saw any.
        assumptions: sentences, one for each thing that had to be assumed to run the model.
    """

    engine: str
    contractions: tuple[Contraction, ...]
    elementwise: Mapping[str, int] = field(default_factory=dict)
    unknown: Mapping[str, int] = field(default_factory=dict)
    uncalled: tuple[str, ...] = ()
    assumptions: tuple[str, ...] = ()

    @property
    def macs(self) -> int:
        """All contraction MACs of the pass."""
        return sum(c.macs for c in self.contractions)

    def by_operator(self) -> dict[str, int]:
        """Operator → MACs, to name where two engines differ."""
        totals: dict[str, int] = {}
        for c in self.contractions:
            totals[c.operator] = totals.get(c.operator, 0) + c.macs
        return totals

    def by_weight(self) -> dict[str, int]:
        """Parameter name → MACs of the contractions it takes part in."""
        totals: dict[str, int] = {}
        for c in self.contractions:
            if c.weight is not None:
                totals[c.weight] = totals.get(c.weight, 0) + c.macs
        return totals


class Engine(Protocol):
    """One way to see a model's operators; every engine answers with the same table."""

    name: str

    def count(self, model: object, args: tuple[object, ...], kwargs: Mapping[str, object]) -> CountTable:
        """Run one forward pass and count it."""
