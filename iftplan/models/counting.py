"""Count tables: what one engine saw in one forward pass, in contraction MACs.

Three lists are kept apart (facts that differ must not look alike): contractions with a known cost,
other work that costs no contraction MACs, and operators whose cost is unknown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from itertools import combinations
from typing import TYPE_CHECKING, Final, Literal, get_args

from iftplan.masks.attention.product import AttentionCall
from iftplan.report.display import Displayed, Framed, Record

if TYPE_CHECKING:
    from iftplan.report.table import Table


EngineName = Literal["meta", "fvcore", "flop_counter"]
"""Who counts: this tool's own engine, fvcore, PyTorch's FlopCounterMode."""
ENGINES: Final[tuple[EngineName, ...]] = get_args(EngineName)


class Values(StrEnum):
    """Origin of the values that a model asked its tensors for, if it asked."""

    UNASKED = "unasked"
    ASSUMED = "assumed"
    GIVEN = "given"


@dataclass(frozen=True, slots=True)
class Contraction:
    """MACs of one operator in one module, all its calls added up.

    Attributes:
        module: dotted path of the innermost module that was running; "" is the model itself.
        operator: the operator's plain name: linear, conv2d, matmul, attention, addmm …
        macs: multiply-accumulates of all calls, as if every weight were dense.
        weight: qualified name of the parameter that was an operand, or None for a product of
            activations. A tied parameter has the first of its names.
        calls: how many calls were added up.
        attention: sizes of the attention that they are, and what its mask keeps; None for all else, and where calls
            differ or a block mask was counted.
    """

    module: str
    operator: str
    macs: int
    weight: str | None = None
    calls: int = 1
    attention: AttentionCall | None = None


@dataclass(frozen=True, slots=True)
class CountTable(Displayed, Framed):
    """Counts of one engine for one forward pass, in MACs.

    Attributes:
        engine: "meta", "fvcore" or "flop_counter".
        contractions: known costs.
        elementwise: operator → number of output elements, for norms, activations, pooling and other
            work without contraction MACs; never added to MACs.
        unknown: operator → calls, for operators that may contract but have no formula.
        uncalled: modules that hold parameters of which no operator saw any.
        assumptions: sentences, one for each thing that had to be assumed to run the model.
        values: what answered where the model asked for values of tensors.
    """

    engine: str
    contractions: tuple[Contraction, ...]
    elementwise: Mapping[str, int] = field(default_factory=dict)
    unknown: Mapping[str, int] = field(default_factory=dict)
    uncalled: tuple[str, ...] = ()
    assumptions: tuple[str, ...] = ()
    values: Values = Values.UNASKED

    def tables(self) -> tuple[Table, ...]:
        """The tables that show the value, the details first."""
        from iftplan.models.tables import count_table

        return (count_table(self),)

    def records(self) -> Sequence[Record]:
        """A row for each operator in each module."""
        return [
            {key: value for key, value in asdict(contraction).items() if key != "attention"}
            for contraction in self.contractions
        ]

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


def cross_check(tables: Sequence[CountTable]) -> tuple[str, ...]:
    """Sentences that name where engines differ; empty if all totals are the same integer.

    Engines name operators differently (a linear layer is an addmm further down), so the comparison is by
    weight first, then by module for products of activations.
    """
    sentences: list[str] = []
    for first, second in combinations(tables, 2):
        if first.macs != second.macs:
            sentences.append(
                f"{first.engine} counts {first.macs} MACs, {second.engine} {second.macs} "
                f"({second.macs - first.macs:+d}): {'; '.join(_differences(first, second))}."
            )
    return tuple(sentences)


def _differences(first: CountTable, second: CountTable, most: int = 3) -> list[str]:
    """The largest differences between two tables, each with the operators behind it."""
    a, b = _by_place(first), _by_place(second)
    places = [p for p in dict.fromkeys((*a, *b)) if _macs(a, p) != _macs(b, p)]
    places.sort(key=lambda p: -abs(_macs(a, p) - _macs(b, p)))
    found = [
        f"{place}: {_macs(a, place)} by {_operators(a, place)} against {_macs(b, place)} by {_operators(b, place)}"
        for place in places[:most]
    ]
    unseen = sorted({*first.unknown, *second.unknown})
    if unseen:
        found.append(f"operators without a formula: {', '.join(unseen)}")
    if len(places) > most:
        found.append(f"and {len(places) - most} more")
    return found


def _by_place(table: CountTable) -> dict[str, list[Contraction]]:
    places: dict[str, list[Contraction]] = {}
    for c in table.contractions:
        place = f"weight {c.weight}" if c.weight else f"products in {c.module or 'the model itself'}"
        places.setdefault(place, []).append(c)
    return places


def _macs(places: Mapping[str, list[Contraction]], place: str) -> int:
    return sum(c.macs for c in places.get(place, ()))


def _operators(places: Mapping[str, list[Contraction]], place: str) -> str:
    return ", ".join(dict.fromkeys(c.operator for c in places.get(place, ()))) or "no operator"


def unknown_sentence(name: str, calls: int) -> str:
    """Sentence about an operator without a formula."""
    times = "1 call" if calls == 1 else f"{calls} calls"
    return f"iftplan has no cost formula for {name} ({times}). If it performs no multiply-accumulates, pass `allow={[f'{name}=0']}`; else give its MACs per call, or N*out for N per output element."


def uncalled_sentence(name: str) -> str:
    """Sentence about a module with weights that the pass never used."""
    return f"module {name} has weights that this forward pass never used. If that is intended, pass `may_stay_uncalled={[name]}`."
