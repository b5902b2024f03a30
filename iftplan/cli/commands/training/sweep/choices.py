"""What `iftplan sweep` combines, as it is written in its options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import product
from typing import TYPE_CHECKING

from iftplan.base.errors import InputError
from iftplan.base.units import parse_sparsity
from iftplan.cli.options import families_of, inputs_of, split
from iftplan.families.transforms.experts import is_mixture

if TYPE_CHECKING:
    from iftplan.families.family import Family
    from iftplan.models.spec import Heads, ModelSpec


_CHOSEN = {"seed": "--seeds", "method.name": "--methods", "data.path": "--data"}
"""Settings that options of their own choose."""

_POINTS = {
    "plan.model": "MODEL",
    "plan.file": "MODEL",
    "plan.transform": "--transforms",
    "plan.sparsity": "--sparsities",
    "plan.mask": "--structures",
    "plan.distribution": "--distributions",
}
"""Settings of a plan that are the points of the grid."""


def families_named(text: str) -> tuple[Mapping[str, Family], tuple[str, ...]]:
    """Families by name, and all names in the order they were given in, "none" and mixtures of experts among them.

    Raises:
        InputError: no name, or one of no family.
    """
    families: dict[str, Family] = {}
    names: list[str] = []
    for part in split(text):
        if part == "none" or is_mixture(part):
            names.append(part)
            continue
        found = families_of(part)
        families |= {family.name: family for family in found}
        names += [family.name for family in found]
    if not names:
        raise InputError("--transforms is empty. Write --transforms wide,parallel or all.")
    return families, tuple(dict.fromkeys(names))


def sparsities_in(text: str) -> tuple[Fraction, ...]:
    """Sparsities of `0.5,0.75`, and of `0.5:0.95:0.05`, whose last is among them where the steps meet it.

    Raises:
        InputError: no sparsity, one outside [0, 1), or a range that is none.
    """
    found: list[Fraction] = []
    for part in split(text):
        ends = part.split(":")
        if len(ends) == 1:
            found.append(parse_sparsity(part))
            continue
        if len(ends) != 3:
            raise InputError(
                f"--sparsities {part!r} is not a range. Write FIRST:LAST:STEP, such as 0.5:0.95:0.05."
            )
        first, last, step = map(parse_sparsity, ends)
        if not step or last < first:
            raise InputError(
                f"--sparsities {part!r} is an empty range. STEP has to be above 0, and LAST at least FIRST."
            )
        found += [first + i * step for i in range(int((last - first) / step) + 1)]
    if not found:
        raise InputError("--sparsities is empty. Write --sparsities 0.5,0.75,0.9.")
    return tuple(dict.fromkeys(found))


def distributions_in(text: str) -> list[str]:
    """Names of distributions, all known.

    Raises:
        InputError: no name, or one of no distribution.
    """
    from iftplan.masks.distributions import Distribution

    known = [d.value for d in Distribution]
    if not (found := split(text)) or (unknown := [name for name in found if name not in known]):
        what = repr(unknown[0]) if found else "nothing"
        raise InputError(f"--distributions names {what}. Distributions are {', '.join(known)}.")
    return found


def seeds_in(text: str, default: int) -> tuple[int, ...]:
    """Seeds of `0,1,2`, each once.

    Raises:
        InputError: a seed is no whole number.
    """
    parts = split(text) or [str(default)]
    if not all(part.isdecimal() for part in parts):
        raise InputError(f"--seeds {text!r} are not whole numbers. Write --seeds 0,1,2.")
    return tuple(dict.fromkeys(map(int, parts)))


def variants_in(given: Sequence[str]) -> Mapping[str, Sequence[str]]:
    """Every combination of the values of `--vary`, as settings, each under the name that it has in the table.

    Example:
        >>> dict(variants_in(["optimizer.lr=0.1,0.2"]))
        {'optimizer.lr=0.1': ['optimizer.lr=0.1'], 'optimizer.lr=0.2': ['optimizer.lr=0.2']}

    Raises:
        InputError: no setting, one that the grid chooses itself, or no values.
    """
    axes: list[list[str]] = []
    for text in given:
        key, _, values = text.partition("=")
        found = _values(values)
        if not found:
            raise InputError(f"--vary {text!r} is not KEY=LIST. Write it as in --vary optimizer.lr=0.1,0.05.")
        if other := _CHOSEN.get(
            key.strip(), "--transforms and its neighbours" if key.startswith("plan.") else ""
        ):
            raise InputError(f"--vary cannot change {key.strip()}. {other} is for that.")
        if any(axis[0].startswith(f"{key.strip()}=") for axis in axes):
            raise InputError(
                f"--vary {key.strip()} is given twice. Write all of its values as one list, such as --vary optimizer.lr=0.1,0.05."
            )
        axes.append([f"{key.strip()}={value}" for value in dict.fromkeys(found)])
    return {", ".join(chosen): list(chosen) for chosen in product(*axes)}


def _values(text: str) -> list[str]:
    """Values between commas; those within brackets belong to one list.

    Example:
        >>> _values("0.1, [0.3,0.6], [0.5]")
        ['0.1', '[0.3,0.6]', '[0.5]']
    """
    parts, depth = [""], 0
    for letter in text:
        depth += (letter == "[") - (letter == "]")
        if letter == "," and not depth:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts if part.strip()]


def refuse_chosen(settings: Sequence[str]) -> None:
    """Refuse settings of `--set` that every point of the grid has its own value of.

    Raises:
        InputError: says which, and the option that chooses it.
    """
    for text in settings:
        key = text.partition("=")[0].strip()
        if other := _POINTS.get(key):
            raise InputError(
                f"--set {key} would be the same for every point of the sweep. {other} is for that."
            )


def specs_of(
    models: Sequence[str],
    input: list[str] | None,
    allow: list[str] | None,
    *,
    widens: bool,
    heads: Heads,
    train: bool,
    no_cache: bool,
) -> Mapping[str, ModelSpec]:
    """Spec of each model under the name that it has in the table, each read once.

    Args:
        models: MODEL arguments.
        input: inputs of the forward pass; None for each model's own.
        allow: costs of unknown operators, NAME=MACS.
        widens: whether some family changes widths.
        heads: "number" or "size", whichever attention keeps when it widens.
        train: whether the models are to be trained, which documents cannot be.
        no_cache: whether to read them anew and keep nothing.

    Raises:
        InputError: a document is to be trained, or a model cannot be read.
    """
    from iftplan.cli.arguments import document_in, spec_of

    if train and (documents := [m for m in models if document_in(m) is not None]):
        raise InputError(
            f"{documents[0]} holds shapes and no network to train. Name the model that it was made from."
        )
    return {
        model: spec_of(
            model,
            inputs_of(input),
            widths=widens,
            heads=heads,
            allow=allow,
            no_cache=no_cache,
            watched=not train,
        )
        for model in dict.fromkeys(models)
    }
