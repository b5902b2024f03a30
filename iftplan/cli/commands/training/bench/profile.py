"""`iftplan bench --profile`: a machine measured once, for the plans that are made for time."""

from __future__ import annotations

from collections.abc import Sequence

from iftplan.base.errors import InputError
from iftplan.base.units import parse_sparsity
from iftplan.cli.arguments import require_torch
from iftplan.cli.options import split
from iftplan.cli.output import Format, emit
from iftplan.cli.progress import counted
from iftplan.masks import parse_mask
from iftplan.plans.plan import Pass
from iftplan.plans.speed.document import default_place, profile_document
from iftplan.plans.speed.profiles import COLUMNS, ROUNDS, SPARSITIES, grid
from iftplan.plans.speed.tables import profile_table
from iftplan.plans.speed.timings import LayerPair


def grid_of(sparsity: str, structures: str, widths: str, columns: str) -> tuple[LayerPair, ...]:
    """Layers that the options of a profile name; the usual ones where they say nothing.

    Args:
        sparsity: comma-separated fractions.
        structures: comma-separated mask structures.
        widths: comma-separated channels.
        columns: comma-separated numbers of positions.

    Raises:
        InputError: one cannot be read.
    """
    return grid(
        [parse_sparsity(text) for text in split(sparsity)] or SPARSITIES,
        [parse_mask(text) for text in split(structures)],
        _sizes(widths, "--widths"),
        _sizes(columns, "--columns") or COLUMNS,
    )


def write_profile(
    pairs: Sequence[LayerPair],
    passes: Sequence[Pass],
    threads: int,
    rounds: int | None,
    form: Format | None,
    output: str | None,
) -> None:
    """Measure a profile, and write it where `plan` looks for it or where `-o` says.

    Args:
        pairs: layers that are timed.
        passes: "forward", "step" or both.
        threads: of the processor.
        rounds: times that every layer runs; None for the usual.
        form: None or JSON.
        output: a file; None for the place where `plan` looks.

    Raises:
        InputError: torch or numba is missing, or the place cannot be written.
    """
    require_torch("timing layers")
    from iftplan.nn.timing.profile import profile

    if form not in (None, Format.JSON):
        raise InputError(f"a profile is always written as JSON. Leave --format {form} out.")
    place = _made_place() if output is None else output
    with counted(len(pairs) * len(passes)) as tell:
        found = profile(pairs, passes=passes, threads=threads, rounds=rounds or ROUNDS, say=tell)
    table = profile_table(found)
    emit([table], lambda: profile_document(found), Format.JSON, place, summary=[table])


def _made_place() -> str:
    """Where `plan` looks for a profile; the folder is made."""
    place = default_place()
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{place.parent} cannot be made ({error.strerror}). Name another file with -o FILE, and give it to iftplan plan with --profile FILE."
        ) from error
    return str(place)


def _sizes(text: str, option: str) -> list[int]:
    """Whole numbers above 0 with commas."""
    for part in split(text):
        if not (part.isascii() and part.isdecimal() and 0 < len(part) < 7 and int(part)):
            raise InputError(f"{option} {part!r} is not a whole number above 0. Write {option} 32,128.")
    return [int(part) for part in split(text)]
