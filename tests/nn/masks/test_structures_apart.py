"""A structure is a file in each of two folders, and nothing else knows which structures there are."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

import pytest
from torch import Generator

import iftplan
from iftplan.base.errors import InputError
from iftplan.masks import Unstructured, parse_mask
from iftplan.masks.structures import STRUCTURES
from iftplan.nn.masks.drawing import random_mask
from iftplan.nn.masks.structures import masks_of

PACKAGE = Path(iftplan.__file__).parent
HOMES = ("masks", "nn/masks/structures", "jaxnn/masking/rows.py")

MADE_FOR = {
    "families/solver.py": {"NM"},  # N:M Wide is a family of N:M masks
    "nn/application/pruning/sparsegpt.py": {"NM"},  # chosen while its columns are passed
    "nn/masking/algorithms/pruning/iterative.py": {"NM"},  # one weight of every group at a time
    "nn/masking/algorithms/sara.py": {"NM"},  # transposable ones are not chosen row by row
    "nn/masking/algorithms/dense_weights/cast.py": {"NM"},  # likewise
    "nn/masking/algorithms/exchange/srigl.py": {"ConstantFanIn"},
    "nn/masking/algorithms/dense_weights/structure_decay.py": {"NM"},
    "nn/masking/algorithms/dense_weights/transposable.py": {"NM"},
    "nn/timing/cuda.py": {"NM"},  # tensor cores are for 2:4
}
"""Who is made for one structure and may name it; `Unstructured` is no structure, and everybody's."""


def named_in(source: str) -> set[str]:
    """Structures that a module imports."""
    names = {kind.__name__ for kind in STRUCTURES} - {"Unstructured"}
    imports = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom))
    return {
        alias.name
        for node in imports
        if (node.module or "").startswith("iftplan.masks")
        for alias in node.names
        if alias.name in names
    }


def test_only_what_is_made_for_a_structure_names_it() -> None:
    found = {
        str(path.relative_to(PACKAGE)): names
        for path in PACKAGE.rglob("*.py")
        if not path.relative_to(PACKAGE).as_posix().startswith(HOMES)
        if (names := named_in(path.read_text(encoding="utf-8")))
    }
    assert found == MADE_FOR


@pytest.mark.parametrize("kind", STRUCTURES, ids=lambda kind: kind.__name__)
def test_every_structure_is_read_as_it_is_written_and_has_its_tensors_side(kind: type) -> None:
    for notation in kind.notations:  # type: ignore[attr-defined]
        text = notation.partition(" ")[0]
        structure = parse_mask(text)
        assert type(structure) is kind
        assert str(structure) == text
        assert masks_of(structure).structure == structure


def test_a_structure_that_can_only_be_planned_says_so() -> None:
    @dataclass(frozen=True)
    class Spiral(Unstructured):
        def __str__(self) -> str:
            return "spiral"

    with pytest.raises(
        InputError, match="spiral masks can be planned, but iftplan cannot draw or train them"
    ):
        random_mask(Spiral(), (2, 2), 1, Generator())
