"""Modules that a user's file imports from beside itself: each folder has its own, whatever other folders call theirs."""

from __future__ import annotations

import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Final

_ASIDE: Final = "iftplan_set_aside"
"""First part of the names under which neighbours of other folders stay in `sys.modules`, where what was read is looked up."""

_INSTALLED: Final = frozenset(
    sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")
)
"""Folders whose modules are everybody's."""

_homes: dict[str, str] = {}
"""Neighbour that can be imported now → the folder that it lies in."""

_within: list[str] = []
"""Folders that are imported from now, the innermost last."""


@contextmanager
def importing_from(folder: Path) -> Iterator[None]:
    """Put a folder first on the path, as `python file.py` does, but only while its code is imported or called.

    What files of other folders have imported from beside themselves is set aside where this folder has its own of that name.

    Args:
        folder: absolute.
    """
    place, before = str(folder), set(sys.modules)
    _turn_to_(place)
    _within.append(place)
    sys.path.insert(0, place)
    try:
        yield
    finally:
        sys.path.remove(place)
        _within.pop()
        if place not in _INSTALLED:
            new = [name for name in sys.modules if name not in before and not name.startswith(_ASIDE)]
            _homes.update((name, place) for name in new if _lies_in(name.partition(".")[0], folder))
        if _within:
            _turn_to_(_within[-1])


def _turn_to_(place: str) -> None:
    """Set neighbours of other folders aside whose names this one has too, and take back its own."""
    folder = Path(place)
    for name in [name for name, home in _homes.items() if home != place and _has(folder, name)]:
        if (module := sys.modules.pop(name, None)) is not None:
            sys.modules[f"{_ASIDE}:{_homes[name]}:{name}"] = module
        del _homes[name]
    prefix = f"{_ASIDE}:{place}:"
    for key in [key for key in sys.modules if key.startswith(prefix)]:
        name = key.removeprefix(prefix)
        sys.modules[name] = sys.modules.pop(key)
        _homes[name] = place


def _has(folder: Path, name: str) -> bool:
    """Whether a module or package of that name, or the one that it is part of, would be found in a folder."""
    top = folder / name.partition(".")[0]
    return top.is_dir() or top.with_suffix(".py").exists()


def _lies_in(name: str, folder: Path) -> bool:
    """Whether a module or package of that name was found in the folder itself."""
    module = sys.modules.get(name)
    return any(Path(place).parent == folder for place in _places(module))


def _places(module: ModuleType | None) -> Iterator[str]:
    """The file of a module, or the folders of a package."""
    if (folders := getattr(module, "__path__", None)) is not None:
        yield from folders
    elif file := getattr(module, "__file__", None):
        yield file
