"""Bundled recipes: TOML files in folders by what they train on; a recipe's name is its file's, whatever the folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable


def recipe_files() -> Mapping[str, Traversable]:
    """Recipe name → its file, in the order of names."""
    return dict(sorted(_found(files("iftplan.runs.recipes"))))


def _found(folder: Traversable) -> Iterator[tuple[str, Traversable]]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _found(entry)
        elif entry.name.endswith(".toml"):
            yield entry.name.removesuffix(".toml"), entry
