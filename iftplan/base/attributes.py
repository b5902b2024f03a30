"""Names that a package offers, loaded when they are first used; a wrong one is met with the nearest."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from typing import Any

from iftplan.base.errors import needs_torch


def suggesting(get: Callable[[str], Any], names: Collection[str]) -> Callable[[str], Any]:
    """The function `__getattr__` of a package, with the nearest of its names in what it refuses.

    Args:
        get: loads a name.
        names: those that there are.
    """

    def found(name: str) -> Any:
        try:
            return get(name)
        except AttributeError as error:
            if name.startswith("_"):  # asked by tools, which expect that it may be missing
                raise
            if (near := nearest(name, names)) is None:
                raise
            raise AttributeError(f"{error}. Did you mean {near}?", name=name) from None
        except ImportError as error:
            if not (told := needs_torch(name, error)):
                raise
            raise ImportError(told, name="torch") from error

    return found


def nearest(name: str, names: Collection[str]) -> str | None:
    """A name that differs in case, hyphens and underscores alone, or else the one that is spelled most alike; None for none.

    Example:
        >>> nearest("topkast", ["rigl", "top-kast"]), nearest("xyz", ["rigl", "top-kast"])
        ('top-kast', None)
    """
    plain = {re.sub("[-_]", "", known.lower()): known for known in names}
    asked = re.sub("[-_]", "", name.lower())
    if asked in plain:
        return plain[asked]
    from difflib import get_close_matches

    near = get_close_matches(asked, plain, 1, 0.75)
    return plain[near[0]] if near else None
