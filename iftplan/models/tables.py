"""Model specs and counts for people: layer by layer, what of it can be widened; and what one engine saw."""

from __future__ import annotations

from iftplan.base.units import Convention, abbreviate, count
from iftplan.models.counting import CountTable, uncalled_sentence, unknown_sentence
from iftplan.models.notation import layer_notation
from iftplan.models.spec import Couplings, ModelSpec
from iftplan.report.table import Table


def spec_table(spec: ModelSpec, convention: Convention = Convention.MAC) -> Table:
    """The layers, their places in the model, and what can be said of the whole."""
    per, unit = convention.per_mac, convention.unit
    rows = [
        (
            w.layer.name,
            layer_notation(w.layer),
            count(w.layer.dense_macs * per),
            w.unmaskable or _place(w.first, w.last),
        )
        for w in spec.layers
    ]
    rows += [(p.name, p.operator, count(p.macs * per), "a product of activations") for p in spec.products]
    title = f"{spec.source or 'the model'}, input {', '.join(map(str, spec.inputs))}: {count(spec.macs * per)} {unit}, scope model"
    notes = (*_widths(spec), *(f"assumed: {a}" for a in spec.assumptions))
    return Table(("layer", "shape", f">{unit}", "remarks"), tuple(rows), title, notes)


_SHOWN = 12
"""So many fixed widths are listed; the document holds all."""


def _widths(spec: ModelSpec) -> tuple[str, ...]:
    """How many widths can move, then each fixed one with the weight that has it and what fixes it."""
    if spec.couplings is None:
        return (f"cannot be widened: {spec.refusal}",) if spec.refusal else ()
    owners = _owners(spec, spec.couplings)
    fixed = {name: spec.couplings.widths[name] for name in owners if spec.couplings.widths[name].fixed}
    free, are = len(spec.couplings.widths) - len(fixed), "is" if len(fixed) == 1 else "are"
    listed = [
        f"{owners[name]} keeps {width.size}: {width.fixed}" for name, width in list(fixed.items())[:_SHOWN]
    ]
    more = [f"and {len(fixed) - _SHOWN} more, which the document lists"] if len(fixed) > _SHOWN else []
    total = f"{free} width{'s' if free != 1 else ''} can move, {len(fixed)} {are} fixed"
    return (total, *listed, *more, *spec.couplings.notes)


def _owners(spec: ModelSpec, couplings: Couplings) -> dict[str, str]:
    """Width → the first tensor that has it as a dimension of its own, in the order of the layers; none: the width itself."""
    weights = [layer.weight for layer in spec.layers if layer.weight in couplings.shapes]
    owners: dict[str, str] = {}
    for name in (*weights, *couplings.shapes):
        for dimension in couplings.shapes[name]:
            if len(dimension.symbols) == 1:
                owners.setdefault(next(iter(dimension.symbols)), name)
    return owners | {name: name for name in couplings.widths if name not in owners}


def _place(first: bool, last: bool) -> str:
    return ", ".join(word for word, there in (("first", first), ("last", last)) if there)


def count_table(table: CountTable, convention: Convention = Convention.MAC) -> Table:
    """Operator by operator in the order of the pass; what is not in the total stands below it."""
    per, unit = convention.per_mac, convention.unit
    rows = tuple(
        (c.module, c.operator, c.weight or "", str(c.calls), count(c.macs * per)) for c in table.contractions
    )
    columns = ("module", "operator", "weight", ">calls", f">{unit}")
    title = f"{count(table.macs * per)} {unit}, counted by {table.engine}, every weight taken as dense"
    other = sum(table.elementwise.values())
    notes = (f"elementwise work, not in the {unit}: {abbreviate(other)} output elements",) if other else ()
    unseen = (unknown_sentence(name, calls) for name, calls in table.unknown.items())
    assumed = (f"assumed: {assumption}" for assumption in table.assumptions)
    return Table(columns, rows, title, (*notes, *unseen, *map(uncalled_sentence, table.uncalled), *assumed))
