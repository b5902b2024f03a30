"""Options that several commands share, read into values."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from iftplan.base.errors import InputError, error_text
from iftplan.base.units import Convention, parse_tolerance
from iftplan.cli import completion
from iftplan.cli.help import MODEL_PANEL, OUTPUT_PANEL
from iftplan.cli.output import FORMAT_HELP, Format
from iftplan.models.notation import parse_input
from iftplan.models.spec import Framework, InputSpec

if TYPE_CHECKING:
    from iftplan.families.family import Family
    from iftplan.plans.request import Rules

FormatOption = Annotated[
    Format | None,
    typer.Option("--format", help=FORMAT_HELP, rich_help_panel=OUTPUT_PANEL),
]
SCOPES = "<matrices|layers|model|module:NAME>"
SCOPE_HELP = "Part of the model whose MACs stay equal: matrices (the transformed layers), layers (all layers with weights), model (the whole forward pass), or module:NAME (one module, which alone is transformed)."
WITHIN_HELP = "Transform and widen only layers in modules of this name, such as backbone or 'encoder.*'; their neighbours follow, and the rest stays as it is."
DISTRIBUTION_HELP = "How density is spread over layers: uniform (the same everywhere), er (denser where a layer has few inputs and outputs), or erk (er that counts kernel sizes)."
STRUCTURES_HELP = "unstructured, 2:8, 2:8T, block4x4, fan-in, channel, blockdiag4, butterfly16 …"
KEEP_DENSE_HELP = (
    "Layers that stay dense, with commas: first, last or layer names; none to keep no layer dense."
)
ROUND_TO_HELP = "Round widths to multiples of N."
HEADS_HELP = "What attention keeps when it widens: the number of its heads, or the size of each."
MODEL_HELP = "zoo:NAME, file.py:factory, hf:CONFIG.json, a spec …; iftplan models lists all forms."
SPARSITY_HELP = "Fraction of weights that are zero: 0.75, 3/4 or 75%"
BudgetOption = Annotated[
    str | None,
    typer.Option(
        "--budget",
        metavar="BUDGET",
        help="Cost of the scope: 0.5x (half of the dense model's MACs), 400M (MACs) or 1.2GFLOPs.",
        show_default="1x",
    ),
]
PruningBudgetOption = Annotated[
    str | None,
    typer.Option(
        "--budget",
        metavar="BUDGET",
        help="MACs that the pruned network may cost: 0.5x (half of the dense model's), 400M or 1.2GFLOPs.",
        show_default="what --sparsity leaves",
    ),
]
Reference = Literal["reference"]
"""Whose choices `--as` makes."""

StructureOption = Annotated[
    str,
    typer.Option(
        "--structure",
        "--mask",
        metavar="STRUCTURE",
        autocompletion=completion.structures,
        help=f"Pattern of the masks: {STRUCTURES_HELP}, or 2:8+pad for sizes that 8 does not divide.",
        show_default="unstructured",
    ),
]
OutputOption = Annotated[
    str | None,
    typer.Option(
        "-o",
        "--output",
        metavar="FILE",
        help="Write to FILE instead of stdout; its ending chooses the format.",
        rich_help_panel=OUTPUT_PANEL,
    ),
]
ConventionOption = Annotated[
    Convention,
    typer.Option(
        "--convention",
        help="Unit of counts: mac (multiply-accumulates) or flop (two for each MAC).",
        rich_help_panel=OUTPUT_PANEL,
    ),
]
InputOption = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        metavar="SHAPE",
        help="Input of the forward pass, such as 1x3x32x32, 1x128:int64 or input_ids=1x128:int64, or a value such as wide=True; repeat it for more inputs.",
        rich_help_panel=MODEL_PANEL,
        show_default="the model's own, where it has one",
    ),
]
FrameworkOption = Annotated[
    Framework | None,
    typer.Option(
        "--framework",
        help="Library that MODEL is written in: torch, or jax for a factory of a function or of a Flax or Equinox module (alone, or in a tuple before its arguments).",
        rich_help_panel=MODEL_PANEL,
        show_default="by what the factory imports",
    ),
]
AllowOption = Annotated[
    list[str] | None,
    typer.Option(
        "--allow",
        metavar="NAME=MACS",
        help="Cost of an operator that iftplan has no formula for: MACs of a call (my::operator=0) or of an output element (my::operator=64*out); repeat it for more.",
        rich_help_panel=MODEL_PANEL,
    ),
]

PlanModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="MODEL",
        autocompletion=completion.models,
        help="Source of the plan's model, such as net.py:build; needed where the plan names Python and was made elsewhere.",
        rich_help_panel=MODEL_PANEL,
    ),
]
TrustOption = Annotated[
    bool,
    typer.Option(
        "--trust",
        help="Run the Python that the plan names, without --model.",
        rich_help_panel=MODEL_PANEL,
    ),
]
NoCacheOption = Annotated[
    bool,
    typer.Option(
        "--no-cache",
        help="Read the model anew, and store nothing in .iftplan_cache.",
        rich_help_panel=MODEL_PANEL,
    ),
]


def inputs_of(given: Sequence[str] | None) -> tuple[InputSpec, ...]:
    """Inputs of a forward pass that the `--input` options give."""
    return tuple(map(parse_input, given or ()))


def tolerance_of(text: str | None) -> Fraction | None:
    """Relative tolerance that the `--tolerance` option gives.

    Raises:
        InputError: not a number, or negative.
    """
    return None if text is None else parse_tolerance(text)


def split(text: str) -> list[str]:
    """Parts of a comma-separated option, without blanks."""
    return [part.strip() for part in text.split(",") if part.strip()]


def families_of(text: str) -> list[Family]:
    """Families of a `--transform` option: names, `all` of Sparse-IFT, or `path/file.py:name` of your own.

    Raises:
        InputError: an unknown name, or a file that holds no family.
    """
    from iftplan.families.builtin import FAMILIES, SPARSE_IFT, family_named

    found: list[Family] = []
    for name in split(text):
        if name == "all":
            found += [FAMILIES[key] for key in SPARSE_IFT]
        elif ".py:" in name:
            found.append(_own_family(name))
        else:
            found.append(family_named(name))
    if not found:
        raise InputError(f"--transform {text!r} names no family. Families are all, {', '.join(FAMILIES)}.")
    return list({family.name: family for family in found}.values())


def assigned_families(given: Sequence[str]) -> Rules:
    """Paths of layers and their families that the `--transform` options of a plan give.

    Raises:
        InputError: they cannot be read, or a file holds no family.
    """
    from iftplan.families.transforms.experts import is_mixture
    from iftplan.plans.policy import rules_in

    text = ",".join(given)
    rules = (("*", text),) if is_mixture(text) else rules_in(text)
    return tuple((glob, _own_family(name) if ".py:" in name else name) for glob, name in rules)


def _own_family(text: str) -> Family:
    """A family from Python that the user names on the command line."""
    import runpy

    from iftplan.families.family import Family

    path, _, name = text.rpartition(":")
    try:
        with redirect_stdout(sys.stderr):  # what the file prints must not end up in our data
            value = runpy.run_path(path).get(name)
    except (Exception, SystemExit) as error:
        raise InputError(f"{path} could not be run: {error_text(error)}") from error
    if not isinstance(value, Family):
        raise InputError(
            f"{text} is not a family. Make one with iftplan.families.derivation.family(name, cost=…, unknown=…)."
        )
    return value
