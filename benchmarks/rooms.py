"""How clearly the tree shows its rooms: entries, the largest folder, arrows between rooms, circles.

    python benchmarks/rooms.py [iftplan] [--circles]

An entry is a file or folder of Python. An arrow goes from one entry of the top folder to another that it imports, in functions too. A
circle is a set of entries of one folder that import each other, directly or over others. A folder counts with every
import of whatever lies in it, a file with those at module level, which Python itself has to bring into an order;
values that ask their tables for themselves when they are shown are so among the circles of every import alone.
"""

from __future__ import annotations

import argparse
import ast
from collections.abc import Iterator
from pathlib import Path

import networkx as nx


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("package", nargs="?", type=Path, default=Path("iftplan"))
    parser.add_argument("--circles", action="store_true", help="name the members of every circle")
    given = parser.parse_args()
    folders = {folder: entries(folder) for folder in sorted(packages(given.package))}
    largest = max(folders, key=lambda folder: len(folders[folder]))
    whole = {folder: graph(given.package, folder) for folder in folders}
    held = {folder: graph(given.package, folder, lazy_files=False) for folder in folders}
    loading = {folder: graph(given.package, folder, lazy=False) for folder in folders}
    print(f"entries at the top        {len(folders[given.package])}")
    print(f"largest folder            {len(folders[largest])}  {largest}")
    print(f"folders above 15 entries  {sum(len(found) > 15 for found in folders.values())}")
    print(f"arrows at the top         {whole[given.package].number_of_edges()}")
    for what, graphs in (("folders, files", held), ("every import", whole), ("module level", loading)):
        circles = [(folder, circle) for folder, g in graphs.items() for circle in circles_of(g)]
        print(f"circles, {what:<17}{len(circles)}")
        for folder, circle in circles if given.circles else ():
            print(f"  {folder}: {', '.join(circle)}")


def packages(package: Path) -> Iterator[Path]:
    """The package and every folder below it that holds Python."""
    yield from {file.parent for file in package.rglob("*.py")}


def entries(folder: Path) -> list[str]:
    """Names of the files and folders of Python in a folder; `__init__` is the folder itself."""
    files = [file.stem for file in folder.glob("*.py") if file.stem != "__init__"]
    return sorted([*files, *(f.name for f in folder.iterdir() if f.is_dir() and any(f.rglob("*.py")))])


def graph(package: Path, folder: Path, lazy: bool = True, lazy_files: bool = True) -> nx.DiGraph:
    """Which entry of the folder imports which other entry of it.

    Args:
        package: the folder of the whole package.
        folder: one in it.
        lazy: whether imports inside functions count.
        lazy_files: whether they count from one file to another.
    """
    names, found = set(entries(folder)), nx.DiGraph()
    prefix = (package.name, *folder.relative_to(package).parts)
    found.add_nodes_from(names)
    for name in names:
        for file in (folder / name).rglob("*.py") if (folder / name).is_dir() else [folder / f"{name}.py"]:
            at_once = set(imports(file, False))
            for target in imports(file, lazy):
                parts = target.split(".")
                if tuple(parts[: len(prefix)]) == prefix and len(parts) > len(prefix):
                    other = parts[len(prefix)]
                    counts = (
                        lazy_files or target in at_once or any((folder / n).is_dir() for n in (name, other))
                    )
                    if counts and other in names and other != name:
                        found.add_edge(name, other)
    return found


def imports(file: Path, lazy: bool) -> Iterator[str]:
    """Dotted names that a file imports, without those for type checkers."""

    def walk(node: ast.AST) -> Iterator[str]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                continue
            if not lazy and isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                continue
            if isinstance(child, ast.Import):
                yield from (alias.name for alias in child.names)
            elif isinstance(child, ast.ImportFrom) and child.module:
                yield from (f"{child.module}.{alias.name}" for alias in child.names)
            yield from walk(child)

    yield from walk(ast.parse(file.read_text(encoding="utf-8")))


def circles_of(arrows: nx.DiGraph) -> list[list[str]]:
    """Sets of entries that import each other."""
    return [sorted(part) for part in nx.strongly_connected_components(arrows) if len(part) > 1]


if __name__ == "__main__":
    main()
