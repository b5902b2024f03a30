"""Names that a package offers, loaded when they are first used; a wrong one is met with the nearest."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from iftplan.base.errors import needs_torch
from iftplan.base.suggestions import did_you_mean


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
            if not (meant := did_you_mean(name, names, cutoff=0.75)):
                raise
            raise AttributeError(f"{error}.{meant}", name=name) from None
        except ImportError as error:
            if not (told := needs_torch(name, error)):
                raise
            raise ImportError(told, name="torch") from error

    return found
