"""Options that several commands share, read into values."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated

import typer

from iftplan.base.errors import InputError
from iftplan.base.units import Convention, parse_tolerance
from iftplan.cli.output import FORMAT_HELP, Format
from iftplan.models.notation import parse_input
from iftplan.models.spec import InputSpec

if TYPE_CHECKING:
    from iftplan.families.family import Family

FormatOption = Annotated[
    Format | None,
    typer.Option("--format", help=FORMAT_HELP),
]
SCOPE_HELP = "Whose MACs are held equal: matrices (transformed layers), layers (every layer with weights), or model (the whole forward pass)."
DISTRIBUTION_HELP = "How density is spread: uniform (the same everywhere), er (denser where inputs and outputs are few), or erk (er that counts kernel sizes)."
STRUCTURES_HELP = "What masks may look like: unstructured, or such as 2:8, 2:8T, block4x4, fan-in, channel"
StructureOption = Annotated[
    str,
    typer.Option(
        "--structure",
        "--mask",
        help=f"{STRUCTURES_HELP}; 2:8+pad for sizes that 8 does not divide.",
    ),
]
OutputOption = Annotated[str | None, typer.Option("-o", "--output", help="Write to FILE instead of stdout.")]
ConventionOption = Annotated[
    Convention, typer.Option("--convention", help="mac: one per multiply-accumulate; flop: two.")
]
InputOption = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        help="Input shape such as 1x3x32x32, 1x128:int64 or input_ids=1x128:int64, or a value such as wide=True; may be repeated.",
    ),
]
AllowOption = Annotated[
    list[str] | None,
    typer.Option(
        "--allow",
        help="Vouch for an unknown operator: NAME=MACS_PER_CALL, or NAME=N*out per output element.",
    ),
]

NoCacheOption = Annotated[
    bool,
    typer.Option("--no-cache", help="Read the model anew, and keep nothing of it in .iftplan_cache."),
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
    """Families of a `--transform` option: names, `all`, or `path/file.py:name` of a family of your own.

    Raises:
        InputError: an unknown name, or a file that holds no family.
    """
    from iftplan.families.builtin import FAMILIES, family_named

    found: list[Family] = []
    for name in split(text):
        if name == "all":
            found += [family for key, family in FAMILIES.items() if key != "nm"]
        elif ".py:" in name:
            found.append(_own_family(name))
        else:
            found.append(family_named(name))
    if not found:
        raise InputError(
            f"--transform {text!r} names no transform; transforms are all, {', '.join(FAMILIES)}."
        )
    return list({family.name: family for family in found}.values())


def _own_family(text: str) -> Family:
    """A family from Python that the user names on the command line."""
    import runpy

    from iftplan.families.family import Family

    path, _, name = text.rpartition(":")
    try:
        with redirect_stdout(sys.stderr):  # what the file prints must not end up in our data
            value = runpy.run_path(path).get(name)
    except (Exception, SystemExit) as error:
        told = " ".join(str(error).split())
        raise InputError(f"{path} could not be run: {type(error).__name__}: {told}") from error
    if not isinstance(value, Family):
        raise InputError(
            f"{text} is no family; make one with iftplan.families.derivation.family(name, cost=…, unknown=…)."
        )
    return value
