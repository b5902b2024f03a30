"""Trade-offs for people: the frontier, and what is read off it."""

from __future__ import annotations

from iftplan.base.units import abbreviate
from iftplan.report.table import Table
from iftplan.runs.results.configurations import ConfigurationResult
from iftplan.runs.results.pareto import ReadingOutcome
from iftplan.runs.results.tradeoff import TradeOff

_TOLD = 8  # groups that one line names
_UNREAD = {
    ReadingOutcome.BELOW: "no cost matches, for even the cheapest other configuration is better",
    ReadingOutcome.ABOVE: "no cost matches, for no other configuration is as good",
}


def tradeoff_table(found: TradeOff) -> Table:
    """The frontier from the cheapest configuration on, with what it says of the dense models."""
    rows = tuple(
        (
            entry.name,
            abbreviate(entry.x.mean),
            f"{entry.y.mean:.6g}",
            "" if entry.y.error is None else f"{entry.y.error:.2g}",
            str(entry.y.count),
        )
        for entry in (found.entries[i] for i in found.frontier)
    )
    columns = ("on the frontier", f">{found.x.title}", f">{found.y.title}", ">±", ">seeds")
    senses = f"{found.x.sense.value} {found.x.name} and {found.y.sense.value} {found.y.name} are better"
    notes = (
        f"{len(found.frontier)} of {len(found.entries)} configurations are on the frontier: {senses}",
        *readings(found),
        *iso_flop(found),
        *(f"note: {note}" for note in found.notes),
    )
    return Table(columns, rows, notes=notes)


def readings(found: TradeOff) -> tuple[str, ...]:
    """Sentences on the cost of equal quality, one for each dense model."""
    said = []
    for i, reading in found.readings:
        entry = found.entries[i]
        if reading.ratio is None or reading.x is None:
            said.append(f"{_at(entry, found)}: {_UNREAD[reading.outcome]}")
        else:
            said.append(f"{_at(entry, found)}: {times(reading.ratio)}, at {abbreviate(reading.x)}")
    return tuple(said)


def _at(entry: ConfigurationResult, found: TradeOff) -> str:
    return f"{entry.name}, {found.y.name} {entry.y.mean:.6g} at {abbreviate(entry.x.mean)}"


def times(ratio: float) -> str:
    """Words for a ratio of costs at equal quality: `the same for 2× less`.

    Example:
        >>> times(2.0), times(0.8), times(1.001)
        ('the same for 2× less', 'the same for 1.25× more', 'the same for the same cost')
    """
    if abs(ratio - 1) < 0.005:
        return "the same for the same cost"
    return f"the same for {ratio:.3g}× less" if ratio > 1 else f"the same for {1 / ratio:.3g}× more"


def iso_flop(found: TradeOff) -> tuple[str, ...]:
    """Groups of equal cost, one line."""
    if not found.groups:
        return ()
    within = f"equal cost within {100 * found.tolerance:.3g} %"
    if len(found.groups) > _TOLD:
        return (f"{within}: {len(found.groups)} groups",)
    told = (
        f"{len(group)} at {abbreviate(sum(found.entries[i].x.mean for i in group) / len(group))}"
        for group in found.groups
    )
    return (f"{within}: {', '.join(told)}",)
