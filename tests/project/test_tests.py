"""The rooms of the tests: those of the package, and a few that surround it; helpers in one place."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.places import BENCHMARKS, MOST, PACKAGE, PAGES, ROOT, TESTS

AROUND = ("support", "golden", "project", "benchmarks")
"""Folders of tests that are no rooms of the package."""


def modules(folder: Path = TESTS) -> Iterator[Path]:
    return (path.relative_to(folder) for path in folder.rglob("*.py") if path.name != "__init__.py")


def test_every_folder_is_a_room_of_the_package_or_surrounds_it() -> None:
    folders = {path.parent for path in modules() if path.parts[0] not in AROUND}
    assert {str(folder) for folder in folders if not (PACKAGE / folder).is_dir()} == set()


@pytest.mark.parametrize("place", [TESTS, BENCHMARKS], ids=lambda path: path.name)
def test_no_folder_holds_more_than_one_can_take_in(place: Path) -> None:
    entries: dict[Path, set[Path]] = {}
    for path in modules(place):
        for entry in (path, *path.parents[:-1]):
            entries.setdefault(entry.parent, set()).add(entry)
    if place == TESTS:
        del entries[Path()]  # the rooms themselves
    assert {str(folder): len(found) for folder, found in entries.items() if len(found) > MOST} == {}


def test_helpers_stand_in_one_place_and_tests_in_all_others() -> None:
    strangers = {
        str(path)
        for path in modules()
        if path.name.startswith("test_") != (path.parts[0] != "support") and path.name != "conftest.py"
    }
    assert strangers == set()


def test_no_test_is_a_helper_of_another() -> None:
    imported = {
        f"{path}: {node.module}"
        for path in modules()
        for node in ast.walk(ast.parse((TESTS / path).read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and re.search(r"\.test_", node.module or "")
    }
    assert imported == set()


def test_files_of_tests_that_pages_and_programs_name_exist() -> None:
    pages = [
        *(ROOT / name for name in ("Makefile", "README.md", "CONTRIBUTING.md")),
        *PAGES,
        *TESTS.rglob("*.py"),
    ]
    for page in pages:
        for name in re.findall(r"\btests/[\w/]+\.py\b", page.read_text(encoding="utf-8")):
            assert (ROOT / name).exists(), f"{page.name} names {name}"


def test_tests_that_are_said_to_take_long_exist() -> None:
    named = (TESTS / "long.txt").read_text(encoding="utf-8").split()
    assert named == sorted(set(named)) and len(named) > 100
    for name in named:
        file, _, function = name.partition("::")
        tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
        known = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        assert not function or function.rpartition("::")[2] in known, name
