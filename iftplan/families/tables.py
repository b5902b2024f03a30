"""Solutions for people: one table for all families of a layer, derivations below."""

from __future__ import annotations

from collections.abc import Sequence

from iftplan.base.units import Convention, bits, count, decimal_text
from iftplan.families.family import Family
from iftplan.families.solution import Outcome, Solution
from iftplan.models.notation import layer_notation
from iftplan.report.table import Table


def solutions_table(name: str, solutions: Sequence[Solution], convention: Convention) -> Table:
    """Solutions of one layer, a row for each family; formulas where channels are symbolic.

    Args:
        name: of the layer, for the title.
        solutions: of one layer at one sparsity, at least one.
        convention: the unit of counts.
    """
    unit = convention.unit
    symbolic = all(s.nnz is None for s in solutions)
    title = f"{name} at sparsity {decimal_text(solutions[0].sparsity)} (density {decimal_text(1 - solutions[0].sparsity)})"
    notes = tuple(
        f"{s.transform}: {(s.reason or s.outcome.value).removeprefix(f'{s.transform}: ')}"
        for s in solutions
        if _remarkable(s)
    )
    if symbolic:
        rows = tuple((s.transform, structure_text(s), s.closed_form, _space(s)) for s in solutions)
        columns = ("transform", "structure", "closed form", "search space (maskable weights)")
        return Table(columns, rows, title, notes)
    counts = tuple(
        (
            s.transform,
            structure_text(s),
            s.closed_form,
            _count(s.nnz),
            _count(s.capacity),
            "" if s.density is None else f"{float(s.density):.4f}",
            _count(s.macs, convention.per_mac),
            _count(s.residual_macs, convention.per_mac),
            "" if s.cardinality.log2_masks is None else bits(s.cardinality.log2_masks),
        )
        for s in solutions
    )
    headings = (
        "transform",
        "structure",
        "closed form",
        ">nnz",
        ">capacity",
        ">density",
        f">{unit}",
        f">residual {unit}",
        ">log2 masks",
    )
    dense = next((s.dense_macs for s in solutions if s.dense_macs is not None), None)
    before = f"; dense: {count(dense * convention.per_mac)} {unit}" if dense is not None else ""
    return Table(headings, counts, title + before, notes)


def solution_tables(s: Solution) -> tuple[Table, ...]:
    """Tables of one solution, with its derivation where that was asked for."""
    solved = solutions_table(layer_notation(s.layer), [s], Convention.MAC)
    return (solved, steps_table(layer_notation(s.layer), s)) if s.steps else (solved,)


def family_table(family: Family) -> Table:
    """Cost of a family and the formulas that follow from it."""
    form, definition = family.form, family.definition
    rows = (
        ("cost per position", form.cost),
        ("closed form", form.full.text),
        ("where only outputs grow (depthwise)", form.outputs.text),
        ("search space", form.maskable),
    )
    source = (definition.source,) if definition.source else ()
    return Table(("", definition.title), rows, notes=source)


def steps_table(name: str, s: Solution) -> Table:
    """A derivation, one equation a line."""
    rows = tuple((step.what, step.equation) for step in s.steps)
    return Table(
        ("step", "equation"),
        rows,
        f"{name}, {s.transform} at sparsity {decimal_text(s.sparsity)}: derivation",
    )


def _remarkable(s: Solution) -> bool:
    return bool(s.reason) or s.outcome not in (Outcome.EXACT, Outcome.SYMBOLIC)


def _space(s: Solution) -> str:
    return s.search_space if s.outcome is Outcome.SYMBOLIC else "nothing masked"


def _count(value: int | None, factor: int = 1) -> str:
    return "" if value is None else count(value * factor)


def structure_text(s: Solution) -> str:
    """`width ×2: 128 → 256`, `4 branches`, `rank 419`; formulas where channels are symbolic."""
    if not s.structure:
        return "unchanged"
    words = []
    if "multiplier" in s.structure:
        factor = s.structure["multiplier"]
        unknown = "width ×k" if s.outcome is Outcome.SYMBOLIC else "no width"
        words.append(unknown if factor is None else f"width ×{factor:.6g}")
        if s.structure.get("out_channels") is not None:
            words[-1] += f": {s.structure['in_channels']}-{s.structure['out_channels']}"
    for key, value in s.structure.items():
        if key in ("in_channels", "out_channels", "multiplier"):
            continue
        if value is None:
            words.append(
                f"{key} {s.closed_form.partition(' = ')[2]}" if s.outcome is Outcome.SYMBOLIC else f"no {key}"
            )
        else:
            words.append(f"{value} {key}" if key == "branches" else f"{key} {value}")
    return ", ".join(words)
