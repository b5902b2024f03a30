"""Framework that a user's model is written in, told from the imports that its factory reaches; nothing is run."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from re import match
from typing import Final

from iftplan.base.errors import InputError
from iftplan.models.sources import SourceKind, parse_source
from iftplan.models.spec import Framework

_LIBRARIES: Final[dict[str, Framework]] = {
    **dict.fromkeys(("torch", "torchvision", "lightning", "pytorch_lightning"), "torch"),
    **dict.fromkeys(("jax", "flax", "equinox", "haiku", "optax"), "jax"),
}
"""Library → the framework of models that are written with it."""

_MOSTLY_TORCH: Final = frozenset({"timm", "transformers", "diffusers"})
"""Libraries of PyTorch's models that others use for a configuration or a tokenizer."""

_MOST_FILES: Final = 200
"""Files that are looked through at most."""


def framework_of(source: str, folder: Path | None = None) -> Framework:
    """Framework of the model that a MODEL argument names: torch, unless its factory reaches JAX alone.

    Args:
        source: "zoo:resnet18", "path/file.py:factory" and the like; one that cannot be read is torch's to refuse.
        folder: that paths and imports begin from; None for the current one.

    Example:
        >>> framework_of("zoo:resnet18")
        'torch'
    """
    here = folder or Path.cwd()
    try:
        named = parse_source(source)
    except InputError:
        return "torch"
    match named.kind:
        case SourceKind.FILE:
            file: Path | None = here / named.target
        case SourceKind.MODULE:
            file = _found(named.target, [here, *map(Path, sys.path)])
        case _:
            return "torch"
    if file is None or not file.is_file():
        return "torch"
    seen = _Seen(here)
    seen.look(file.resolve(), named.attribute)
    known = {_LIBRARIES[name] for name in seen.libraries & set(_LIBRARIES)}
    if not known and not seen.libraries & _MOSTLY_TORCH:
        known = {found for name in seen.libraries for found in _required(name)}
    return "jax" if known == {"jax"} else "torch"


@dataclass(slots=True)
class _Seen:
    """What was looked through.

    Attributes:
        here: folder that imports begin from.
        libraries: first parts of the names of imported modules that are not the user's own.
        places: files and names in them, "" for all of a file.
    """

    here: Path
    libraries: set[str] = field(default_factory=set)
    places: set[tuple[Path, str]] = field(default_factory=set)

    def look(self, file: Path, attribute: str) -> None:
        """Add the libraries that a name in a file reaches; the whole file's where it does not define that name.

        Args:
            file: of Python.
            attribute: the name; "" for all of the file.
        """
        if (file, attribute) in self.places or len(self.places) > _MOST_FILES:
            return
        self.places.add((file, attribute))
        try:
            tree = ast.parse(file.read_text(encoding="utf-8"))
        except (OSError, SyntaxError, ValueError):  # running it will say what is wrong
            return
        names = _defined(tree)
        reached = _closure(names, attribute) if attribute in names else [tree]
        for module, name in dict.fromkeys(found for node in reached for found in _imports(node, file)):
            self._follow(module, name, file)

    def _follow(self, module: str, name: str, file: Path) -> None:
        top = module.partition(".")[0]
        if top in _LIBRARIES or top in _MOSTLY_TORCH:
            self.libraries.add(top)
        if top in self.libraries or top in sys.stdlib_module_names:
            return
        folders = [file.parent, self.here, self.here / "src"]
        inside = next((folder.parent for folder in file.parents if folder.name == top), None)
        places = folders if inside is None else [inside, *folders]
        inner = _found(f"{module}.{name}", places) if name else None
        found = inner or _found(module, places)
        if found is None:
            self.libraries.add(top)
        else:
            self.look(found.resolve(), "" if inner else name)


def _defined(tree: ast.Module) -> dict[str, ast.stmt]:
    """Name → the statement at module level that binds it, also under `if` and `try`."""
    found: dict[str, ast.stmt] = {}
    waiting = [*tree.body]
    while waiting:
        node = waiting.pop(0)
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                found.setdefault(node.name, node)
            case ast.Import() | ast.ImportFrom():
                for alias in node.names:
                    found.setdefault(alias.asname or alias.name.partition(".")[0], node)
            case ast.Assign() | ast.AnnAssign():
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                names = (n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name))
                found |= {name: node for name in names if name not in found}
            case ast.If() | ast.Try() | ast.With():
                waiting += [
                    child for child in ast.walk(node) if isinstance(child, ast.stmt) and child is not node
                ]
    return found


def _closure(names: dict[str, ast.stmt], attribute: str) -> list[ast.stmt]:
    """Statements that a name is made of, those of the names in them included."""
    reached: dict[str, ast.stmt] = {}
    waiting = [attribute]
    while waiting:
        name = waiting.pop()
        if name in reached or name not in names:
            continue
        reached[name] = names[name]
        waiting += [node.id for node in ast.walk(names[name]) if isinstance(node, ast.Name)]
    return [_used(node, set(reached)) for node in dict.fromkeys(reached.values())]


def _used(node: ast.stmt, names: set[str]) -> ast.stmt:
    """An import statement of those names alone that are used; any other statement as it is."""
    if not isinstance(node, ast.Import | ast.ImportFrom):
        return node
    used = [alias for alias in node.names if (alias.asname or alias.name.partition(".")[0]) in names]
    if isinstance(node, ast.Import):
        return ast.Import(used)
    return ast.ImportFrom(node.module, used, node.level)


def _imports(node: ast.AST, file: Path) -> Iterator[tuple[str, str]]:
    """(module, name) of each import in a statement; relative ones by the folders that the file lies in."""
    for found in ast.walk(node):
        if isinstance(found, ast.Import):
            yield from ((alias.name, "") for alias in found.names)
        elif isinstance(found, ast.ImportFrom):
            above = (
                ".".join(folder.name for folder in reversed(_package(file)[found.level - 1 :]))
                if found.level
                else ""
            )
            module = ".".join(filter(None, (above, found.module)))
            yield from ((module, alias.name if alias.name != "*" else "") for alias in found.names)


def _package(file: Path) -> list[Path]:
    """Folders of the packages that a file lies in, the innermost first."""
    found = []
    for folder in file.parents:
        if not folder.name.isidentifier():
            break
        found.append(folder)
        if not (folder / "__init__.py").exists():
            break
    return found


def _found(module: str, folders: list[Path]) -> Path | None:
    """File of a module below one of these folders."""
    parts = module.split(".")
    for folder in folders:
        for file in (folder.joinpath(*parts).with_suffix(".py"), folder.joinpath(*parts, "__init__.py")):
            if file.is_file():
                return file
    return None


def _required(library: str) -> Iterator[Framework]:
    """Frameworks that an installed library says it needs."""
    from importlib.metadata import PackageNotFoundError, requires

    try:
        needed = requires(library) or []
    except PackageNotFoundError:
        return
    for text in needed:
        name = match(r"[\w-]+", text)
        if name is not None and "extra ==" not in text and (found := _LIBRARIES.get(name[0])):
            yield found
