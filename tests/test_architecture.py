"""The import contract, read from the table in docs/architecture.md and held against every import."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "iftplan"
HEAVY = {"torch", "fvcore", "transformers", "timm", "torchvision"}
ALLOWED = {("plans", "report")}  # a plan shows itself as `iftplan plan` does

Edges = Mapping[str, set[str]]


def rooms() -> list[list[str]]:
    """The rows of the table, lowest first."""
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = page.partition("| room |")[2].partition("\n\n")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    return [re.findall(r"`(\w+)/?`", row) for row in rows]


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(tree: ast.AST, *, at_import: bool = False) -> Iterator[str]:
    """Modules that a source imports; with `at_import` only what runs when it is imported itself."""
    for node in ast.iter_child_nodes(tree):
        match node:
            case ast.Import():
                yield from (alias.name for alias in node.names)
            case ast.ImportFrom() if node.module:
                yield node.module
                yield from (f"{node.module}.{alias.name}" for alias in node.names)
            case ast.FunctionDef() | ast.AsyncFunctionDef() if at_import:
                continue
            case ast.If(test=ast.Name(id="TYPE_CHECKING")) if at_import:
                continue
        yield from imports(node, at_import=at_import)


def edges() -> Edges:
    """Room → the rooms that its files import, whenever that happens."""
    names = {name for row in rooms() for name in row}
    found: dict[str, set[str]] = {name: set() for name in names}
    for path in PACKAGE.rglob("*.py"):
        if (room := room_of(path)) in found:
            parts = [name.split(".") for name in imports(ast.parse(path.read_text(encoding="utf-8")))]
            found[room] |= {p[1] for p in parts if p[0] == "iftplan" and len(p) > 1 and p[1] in names} - {
                room
            }
    return found


def breaches(rows: Sequence[Sequence[str]], imported: Edges) -> list[str]:
    """Imports that go up, and rows with a cycle."""
    level = {name: i for i, row in enumerate(rows) for name in row}
    found = [
        f"{room} imports {other}, which is above it"
        for room, others in imported.items()
        for other in sorted(others)
        if level[other] > level[room] and (room, other) not in ALLOWED
    ]
    for row in rows:
        try:
            TopologicalSorter({name: imported[name] & set(row) for name in row}).prepare()
        except CycleError as error:
            found.append(f"a cycle of {', '.join(sorted(set(error.args[1])))}")
    return found


def test_every_module_has_one_room() -> None:
    named = [name for row in rooms() for name in row]
    modules = {room_of(path) for path in PACKAGE.rglob("*.py")} - {"__init__", "__main__"}
    assert len(named) == len(set(named))
    assert set(named) == modules


def test_no_module_imports_upwards() -> None:
    assert len(edges()["planner"]) > 3
    assert breaches(rooms(), edges()) == []


@pytest.mark.parametrize(
    ("imported", "found"),
    [
        ({"low": {"high"}, "side": set(), "high": set()}, ["low imports high, which is above it"]),
        ({"low": {"side"}, "side": {"low"}, "high": set()}, ["a cycle of low, side"]),
        ({"low": set(), "side": {"low"}, "high": {"side"}}, []),
    ],
)
def test_a_breach_would_be_found(imported: Edges, found: list[str]) -> None:
    assert breaches([["low", "side"], ["high"]], imported) == found


def test_nothing_outside_nn_imports_torch_by_being_imported() -> None:
    for path in PACKAGE.rglob("*.py"):
        if room_of(path) != "nn":
            names = set(imports(ast.parse(path.read_text(encoding="utf-8")), at_import=True))
            assert not {
                name for name in names if name.split(".")[0] in HEAVY or name.startswith("iftplan.nn")
            }, path


def _run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )


WITHOUT_TORCH = f"import sys\nsys.modules.update(dict.fromkeys({sorted(HEAVY)}))\n"  # None refuses the import


def test_the_core_works_without_torch() -> None:
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in PACKAGE.rglob("*.py")
        if room_of(path) not in ("nn", "__main__") and path.name != "__init__.py"
    ]
    solve = "import iftplan\nassert iftplan.solve('linear:64-64', 'wide', '1/2').nnz == 4096"
    done = _run(WITHOUT_TORCH + "".join(f"import {name}\n" for name in modules) + solve)
    assert done.returncode == 0, done.stderr


def test_the_proof_that_the_core_works_without_torch_can_fail() -> None:
    done = _run(WITHOUT_TORCH + "import iftplan.nn.measure")
    assert done.returncode != 0
    assert "torch" in done.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["solve", "--help"]])
def test_help_and_version_import_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import atexit, sys\n"
        "heavy = {'torch', 'pandas', 'matplotlib', 'sympy'}\n"
        "atexit.register(lambda: print('heavy:', *sorted(heavy & set(sys.modules)), file=sys.stderr))\n"
        f"from iftplan.cli.main import main\nmain({arguments})"
    )
    done = _run(code)
    assert done.returncode == 0, done.stderr
    assert done.stderr.strip() == "heavy:"
