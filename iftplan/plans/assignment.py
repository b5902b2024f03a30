"""Which family each layer of a plan is in where there are several: globs over layers' names, in their order."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from iftplan.base.errors import InputError
from iftplan.plans.plan import lies_within

DENSE: Final = "dense"
"""In the place of a family: the layers stay dense."""

PLAIN: Final = "none"
"""In the place of a family: the layers are masked at the width that they have."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """Families of a model's layers: the first glob that a layer's name matches decides.

    Attributes:
        rules: paths of layers or modules, with `*` and `?`, and the names of their families.
        rest: family of the layers that no path matches; "dense" where they stay so.
    """

    rules: tuple[tuple[str, str], ...]
    rest: str

    def __str__(self) -> str:
        return ", ".join((*(f"{glob}={family}" for glob, family in self.rules), self.rest))

    def of(self, layer: str) -> str:
        """Name of a layer's family."""
        return next((family for glob, family in self.rules if lies_within(layer, glob)), self.rest)

    @property
    def families(self) -> tuple[str, ...]:
        """Names of all families, "dense" and "none" among them, each once."""
        return tuple(dict.fromkeys((*(family for _, family in self.rules), self.rest)))


def rules_in(text: str) -> tuple[tuple[str, str], ...]:
    """Globs and names of families in a text such as `attn.*=parallel, wide`; a name alone is for `*`, and comes last.

    Raises:
        InputError: two names for the rest, an empty part, or nothing at all.

    Example:
        >>> rules_in("wide, encoder.*=parallel")
        (('encoder.*', 'parallel'), ('*', 'wide'))
    """
    parts = [part.strip() for part in text.split(",")]
    pairs = [tuple(side.strip() for side in part.rpartition("=")[::2]) for part in parts]
    for part, (glob, family) in zip(parts, pairs, strict=True):
        if not family or ("=" in part and not glob):
            raise InputError(
                f"`family={text!r}`: {part!r} is not a family, and not a path with its family. Write `family='PATH=FAMILY'`, "
                "such as 'encoder.*=parallel'."
            )
    rest = [family for glob, family in pairs if not glob]
    if len(rest) > 1:
        raise InputError(
            f"`family={text!r}` names {len(rest)} families, and a layer has one. Give the layers of each, as in "
            f"'encoder.*={rest[0]}, {rest[1]}', choose between them with {'|'.join(rest)!r} and an objective, or make a "
            "plan for each with `iftplan sweep`."
        )
    return (*((glob, family) for glob, family in pairs if glob), *(("*", family) for family in rest))


def parse_assignment(text: str) -> Assignment:
    """Assignment that a text holds; a single name is the family of all layers.

    Raises:
        InputError: it cannot be read.
    """
    return assignment_of(rules_in(text))


def assignment_of(pairs: Sequence[tuple[str, str]]) -> Assignment:
    """Assignment of pairs of a glob and a name; what comes after `*` is out of every layer's reach, and refused.

    Raises:
        InputError: a path that no layer can reach.
    """
    globs = [glob for glob, _ in pairs]
    if "*" not in globs:
        return Assignment(tuple(pairs), DENSE)
    last = globs.index("*")
    if globs[last + 1 :]:
        raise InputError(
            f"`family`: {globs[last + 1]!r} comes after '*', which takes all layers. Put '*' at the end."
        )
    return Assignment(tuple(pairs[:last]), pairs[last][1])


def check_reached(assignment: Assignment, layers: Sequence[str], model: str) -> None:
    """Refuse globs that decide no layer's family.

    Args:
        assignment: of families to layers.
        layers: names of the model's layers.
        model: what messages call it.

    Raises:
        InputError: a path that no layer matches, with the nearest names, or one whose layers earlier ones take.
    """
    left = list(layers)
    for glob, _ in assignment.rules:
        taken = [name for name in left if lies_within(name, glob)]
        if not taken:
            raise InputError(_unreached(glob, layers, model))
        left = [name for name in left if not lies_within(name, glob)]


def _unreached(glob: str, layers: Sequence[str], model: str) -> str:
    if any(lies_within(name, glob) for name in layers):
        return f"`family`: all layers that {glob!r} matches are in the families of earlier paths. Put it before them."
    near = difflib.get_close_matches(glob, list(dict.fromkeys(_paths(layers))), 3, 0)
    return f"`family`: no layer of {model} matches {glob!r}. The nearest names are {', '.join(near)}."


def _paths(layers: Sequence[str]) -> Iterator[str]:
    """Layers, and the modules that they lie in."""
    for name in layers:
        parts = name.split(".")
        yield from (".".join(parts[:end]) for end in range(len(parts), 0, -1))
