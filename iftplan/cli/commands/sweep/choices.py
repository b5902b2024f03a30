"""What `iftplan sweep` combines, as it is written in its options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING

from iftplan.base.errors import InputError
from iftplan.base.units import parse_sparsity
from iftplan.cli.options import families_of, inputs_of, split

if TYPE_CHECKING:
    from iftplan.families.family import Family
    from iftplan.models.spec import ModelSpec


def families_named(text: str) -> tuple[Mapping[str, Family], tuple[str, ...]]:
    """The families by name, and all names in the order they were given in, "none" among them."""
    families: dict[str, Family] = {}
    names: list[str] = []
    for part in split(text):
        found = [] if part == "none" else families_of(part)
        families |= {family.name: family for family in found}
        names += ["none"] if part == "none" else [family.name for family in found]
    if not names:
        raise InputError("--transforms names none; write --transforms wide,parallel or all.")
    return families, tuple(dict.fromkeys(names))


def sparsities_in(text: str) -> tuple[Fraction, ...]:
    """`0.5,0.75`, and `0.5:0.95:0.05`, whose last is among them where the steps meet it."""
    found: list[Fraction] = []
    for part in split(text):
        ends = part.split(":")
        if len(ends) == 1:
            found.append(parse_sparsity(part))
            continue
        if len(ends) != 3:
            raise InputError(
                f"sparsities {part!r} are no range; write FIRST:LAST:STEP, such as 0.5:0.95:0.05."
            )
        first, last, step = map(parse_sparsity, ends)
        if not step or last < first:
            raise InputError(
                f"sparsities {part!r} hold nothing; the step is above 0, and LAST not below FIRST."
            )
        found += [first + i * step for i in range(int((last - first) / step) + 1)]
    if not found:
        raise InputError("--sparsities names none; write --sparsities 0.5,0.75,0.9.")
    return tuple(dict.fromkeys(found))


def distributions_in(text: str) -> list[str]:
    """Names of distributions, all known."""
    from iftplan.masks.distributions import Distribution

    known = [d.value for d in Distribution]
    if not (found := split(text)) or (unknown := [name for name in found if name not in known]):
        what = repr(unknown[0]) if found else "nothing"
        raise InputError(f"--distributions names {what}; distributions are {', '.join(known)}.")
    return found


def seeds_in(text: str, default: int) -> tuple[int, ...]:
    """`0,1,2`, each once."""
    parts = split(text) or [str(default)]
    if not all(part.isdecimal() for part in parts):
        raise InputError(f"--seeds {text!r} are no whole numbers; write --seeds 0,1,2.")
    return tuple(dict.fromkeys(map(int, parts)))


def specs_of(
    models: Sequence[str],
    input: list[str] | None,
    allow: list[str] | None,
    *,
    widens: bool,
    heads: str,
    train: bool,
) -> Mapping[str, ModelSpec]:
    """Each model, read once, under the name that it has in the table."""
    from iftplan.cli.arguments import document_in, spec_of

    if train and (documents := [m for m in models if document_in(m) is not None]):
        raise InputError(
            f"{documents[0]} is a document, and there is nothing in it to train; name the model that it was made of."
        )
    return {
        model: spec_of(
            model, inputs_of(input), widths=widens, heads="size" if heads == "size" else "number", allow=allow
        )
        for model in dict.fromkeys(models)
    }
