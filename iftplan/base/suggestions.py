"""What was probably meant, where a name is none of those that are known."""

from __future__ import annotations

import re
from collections.abc import Iterable


def nearest(given: str, known: Iterable[str], *, most: int = 1, cutoff: float = 0.5) -> list[str]:
    """The known names that are spelled most like a given one, whatever their case, hyphens and underscores.

    Args:
        given: the name that is not known.
        known: the names that are; of those that differ in case alone, the first is found.
        most: names that are returned at most.
        cutoff: how like a name has to be, from 0 to 1 (`difflib.SequenceMatcher.ratio`).

    Example:
        >>> nearest("topkast", ["rigl", "top-kast"]), nearest("xyz", ["rigl", "top-kast"])
        (['top-kast'], [])
    """
    from difflib import get_close_matches

    plain: dict[str, str] = {}
    for name in known:
        plain.setdefault(_plain(name), name)
    return [plain[near] for near in get_close_matches(_plain(given), plain, most, cutoff)]


def did_you_mean(given: str, known: Iterable[str], *, most: int = 1, cutoff: float = 0.5) -> str:
    """A question to end a refusal with, and a space before it; empty where nothing known is like what was given.

    Args:
        given: the name that is not known.
        known: the names that are.
        most: names in the question.
        cutoff: as in `nearest`.

    Example:
        >>> did_you_mean("ResNet18", ["resnet18", "resnet34", "vit"], most=2)
        " Did you mean 'resnet18' or 'resnet34'?"
        >>> did_you_mean("gpt", ["resnet18", "resnet34", "vit"])
        ''
    """
    quoted = [f"'{name}'" for name in nearest(given, known, most=most, cutoff=cutoff)]
    return f" Did you mean {' or '.join(quoted)}?" if quoted else ""


def _plain(name: str) -> str:
    return re.sub("[-_]", "", name.lower())
