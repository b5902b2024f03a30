"""`iftplan solve`: the closed form of each family for a layer, its integers, counts and search space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from iftplan.base.documents import read_text
from iftplan.base.errors import InfeasibleError, InputError
from iftplan.base.units import Convention, parse_sparsity
from iftplan.cli import completion
from iftplan.cli.options import (
    ROUND_TO_HELP,
    SPARSITY_HELP,
    ConventionOption,
    FormatOption,
    OutputOption,
    StructureOption,
    families_of,
    split,
)
from iftplan.cli.output import emit, say_next

if TYPE_CHECKING:
    from iftplan.families.family import Family
    from iftplan.families.solution import Solution
    from iftplan.report.table import Table

EXAMPLE = """
Example:

  $ iftplan solve --layer conv3x3 --sparsity 0.75

  conv3x3 at sparsity 0.75 (density 0.25)
  transform    structure                                        closed form                            search space (maskable weights)
  ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────
  wide         width ×2                                         k = 2                                  36·C_in·C_out
  parallel     4 branches                                       b = 4                                  36·C_in·C_out
  factorized   rank 36·C_in·C_out/(9·C_in+C_out)                r = 36·C_in·C_out/(9·C_in+C_out)       36·C_in·C_out
  doped        rank 27·C_in·C_out/(4·(9·C_in+C_out))            r = 27·C_in·C_out/(4·(9·C_in+C_out))   9·C_in·C_out
  lowrank      width ×k, rank 9·C_in·C_out/(2·(9·C_in+C_out))   r = 9·C_in·C_out/(2·(9·C_in+C_out))    0
"""


def command(
    layer: Annotated[
        list[str] | None,
        typer.Option(
            "--layer",
            metavar="LAYER",
            autocompletion=completion.layer_kinds,
            help="Layer, such as conv3x3, linear:768-3072 or conv3x3:64-128@16x16,stride=2; repeat it for more.",
        ),
    ] = None,
    layers: Annotated[
        str | None,
        typer.Option("--layers", metavar="FILE", help="File with one layer per line; - for stdin."),
    ] = None,
    sparsity: Annotated[
        str,
        typer.Option("--sparsity", metavar="SPARSITY", help=f"{SPARSITY_HELP}; several with commas."),
    ] = "0.75",
    transform: Annotated[
        str,
        typer.Option(
            "--transform",
            autocompletion=completion.transforms,
            metavar="FAMILIES",
            help="Families, with commas: wide, parallel, factorized, doped, lowrank, nm, monarch, btt, kronecker, butterfly or all (those of Sparse-IFT); file.py:name for one of your own.",
        ),
    ] = "all",
    structure: StructureOption = "",
    round_to: Annotated[int, typer.Option("--round-to", min=1, help=ROUND_TO_HELP)] = 1,
    steps: Annotated[bool, typer.Option("--steps", help="Show how each closed form is derived.")] = False,
    form: FormatOption = None,
    output: OutputOption = None,
    convention: ConventionOption = Convention.MAC,
) -> None:
    """Solve the iso-FLOP equation of each family for a layer.

    The answer is a closed form and, for given channels, whole numbers; several layers at once are fine.
    """
    from iftplan.families.document import solve_document
    from iftplan.families.solver import solve
    from iftplan.masks import parse_mask
    from iftplan.models.notation import parse_layer

    names = [*(layer or ()), *(_from_file(layers) if layers else ())]
    if not names:
        raise InputError("no layer was given. Name one, such as --layer conv3x3:64-128@16x16.")
    families = families_of(transform)
    mask = parse_mask(structure) if structure else None
    sparsities = [parse_sparsity(text) for text in split(sparsity)]
    if not sparsities:
        raise InputError("no sparsity was given. Write --sparsity 0.75, or several as 0.5,0.75.")
    parsed = {name: parse_layer(name) for name in names}
    solutions = {
        name: [
            solve(spec, family, s, mask=mask, round_to=round_to, throw=False)
            for s in sparsities
            for family in families
        ]
        for name, spec in parsed.items()
    }
    _refuse_infeasible(solutions)
    if steps:
        solutions = _explained(solutions, families)
    tables = [table for name, found in solutions.items() for table in _tables(name, found, convention)]
    emit(
        tables,
        lambda: solve_document(solutions, convention),
        form,
        output,
        latex=_latex(solutions),
    )
    name = transform if len(families) == 1 else "wide"
    masks = ["--structure", structure] if structure else []
    sparse = split(sparsity)[0]
    say_next(
        ["plan", "MODEL", "--transform", name, "--sparsity", sparse, *masks, "-o", "plan.json"], form, output
    )


def _from_file(path: str) -> list[str]:
    lines = (line.partition("#")[0].strip() for line in read_text(path).splitlines())
    return [line for line in lines if line]


def _refuse_infeasible(solutions: Mapping[str, Sequence[Solution]]) -> None:
    """Where nothing at all can be answered, that is an error; else the answer says which family cannot."""
    from iftplan.families.solution import Outcome

    everything = [s for found in solutions.values() for s in found]
    if all(s.outcome is Outcome.INFEASIBLE for s in everything):
        raise InfeasibleError(" ".join(dict.fromkeys(s.reason for s in everything)))


def _explained(
    solutions: Mapping[str, Sequence[Solution]], families: Sequence[Family]
) -> dict[str, list[Solution]]:
    from iftplan.families.steps import explain

    named = {family.name: family for family in families}
    return {name: [explain(s, named[s.transform]) for s in found] for name, found in solutions.items()}


def _tables(name: str, found: Sequence[Solution], convention: Convention) -> list[Table]:
    from iftplan.families.tables import solutions_table, steps_table

    tables = [
        solutions_table(name, [s for s in found if s.sparsity == sparsity], convention)
        for sparsity in dict.fromkeys(s.sparsity for s in found)
    ]
    return tables + [steps_table(name, s) for s in found if s.steps]


def _latex(solutions: Mapping[str, Sequence[Solution]]) -> str:
    """Display formulas, each under a comment that says whose it is."""
    lines = []
    for name, found in solutions.items():
        for s in found:
            lines.append(f"% {name}, {s.transform}, sparsity {s.sparsity}")
            formulas = [step.latex for step in s.steps] or [s.closed_form_latex]
            lines += [f"\\[ {formula} \\]" for formula in formulas]
    return "\n".join(lines) + "\n"
