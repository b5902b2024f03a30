"""`{derivation} FAMILY`: a family's equation, its solution and every step, as the engine derives them at build time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from iftplan.families.builtin import FAMILIES, family_named
from iftplan.families.derivation import derive
from iftplan.families.family import Family
from iftplan.families.solution import Step
from iftplan.families.solver import solve
from iftplan.families.steps import explain
from iftplan.models.notation import parse_layer

Rows = Iterable[Sequence[nodes.Node]]


class Derivation(SphinxDirective):
    """The steps of one family for one layer at one sparsity."""

    required_arguments = 1
    option_spec: ClassVar = {"layer": directives.unchanged, "sparsity": directives.unchanged}

    def run(self) -> list[nodes.Node]:
        """A table: what is done, and the equation."""
        layer = parse_layer(self.options.get("layer", "conv3x3"))
        sparsity = Fraction(self.options.get("sparsity", "3/4"))
        family = family_named(self.arguments[0])
        return [steps_table(explain(solve(layer, family, sparsity), family).steps)]


class ClosedForms(SphinxDirective):
    """Every built-in family in the symbols m, n and d: equation and root."""

    def run(self) -> list[nodes.Node]:
        """A table with a row for each family."""
        return [forms_table(tuple(FAMILIES.values()))]


def forms_table(families: tuple[Family, ...]) -> nodes.table:
    """Family, iso-FLOP equation, solution."""
    rows = ((f.definition.title, formula(equation(f)), formula(f.form.full.latex)) for f in families)
    cells = [(nodes.paragraph("", title), equal, root) for title, equal, root in rows]
    return _table(("family", "equal MACs per position", "solution"), (26, 44, 30), cells)


def equation(family: Family) -> str:
    """The iso-FLOP equation in LaTeX, in any layer's m inputs and n outputs."""
    import sympy

    return f"{sympy.latex(derive(family.definition).cost)} = m n"


def steps_table(found: tuple[Step, ...]) -> nodes.table:
    """Two columns: what is done, and the equation in LaTeX."""
    cells = [(nodes.paragraph("", step.what), formula(step.latex)) for step in found]
    return _table(("step", "equation"), (38, 62), cells)


def _table(titles: tuple[str, ...], shares: tuple[int, ...], cells: Rows) -> nodes.table:
    group = nodes.tgroup("", *(nodes.colspec(colwidth=share) for share in shares), cols=len(shares))
    group += nodes.thead("", _row([nodes.paragraph("", title) for title in titles]))
    group += nodes.tbody("", *(_row(row) for row in cells))
    return nodes.table("", group, classes=["derivation"])


def _row(cells: Sequence[nodes.Node]) -> nodes.row:
    return nodes.row("", *(nodes.entry("", cell) for cell in cells))


def formula(latex: str) -> nodes.math_block:
    """A formula on a line of its own."""
    return nodes.math_block(latex, latex, number=None, label=None)


def setup(app: Sphinx) -> dict[str, bool]:
    """Make the directives known."""
    app.add_directive("derivation", Derivation)
    app.add_directive("closed-forms", ClosedForms)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
