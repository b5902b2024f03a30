"""Folders whose files are a list: each holds a class of one kind, and to add a file is to add to the list."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pkgutil import walk_packages
from typing import TypeVar

T = TypeVar("T")


def classes_in(module: str, kind: type[T]) -> Iterator[type[T]]:
    """Classes of a kind that a module defines itself, in the order in which they stand there.

    Raises:
        ModuleNotFoundError: there is no such module.
    """
    for value in vars(import_module(module)).values():
        if isinstance(value, type) and issubclass(value, kind) and value.__module__ == module:
            yield value


def classes_of(package: str, kind: type[T]) -> Iterator[type[T]]:
    """Classes of a kind that the files of a package's folder and the folders in it define, in the order of their names."""
    for file in walk_packages(import_module(package).__path__, f"{package}."):
        yield from classes_in(file.name, kind)
