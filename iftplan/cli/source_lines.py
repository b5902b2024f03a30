"""Where in a repository a message about a model belongs: the line of its factory, or of its table in a configuration."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from iftplan.base.errors import IftplanError
from iftplan.models.sources import Source, SourceKind, parse_source
from iftplan.report.page import Place

_ROOTS = (Path(), Path("src"))
"""Folders that a repository keeps its packages in."""


def source_place(source: str) -> Place | None:
    """The file and line of the function or class that a source names; None where it names no file here.

    The file is parsed, never run.
    """
    try:
        parsed = parse_source(source)
        file = _file(parsed)
        if file is None:
            return None
        tree = ast.parse(file.read_text(encoding="utf-8"))
    except (IftplanError, OSError, ValueError, SyntaxError):
        return None
    defined = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    lines = (node.lineno for node in tree.body if isinstance(node, defined) and node.name == parsed.attribute)
    return Place(file.as_posix(), next(lines, 1))


def _file(source: Source) -> Path | None:
    if source.kind is SourceKind.FILE:
        return Path(source.target)
    if source.kind is not SourceKind.MODULE:
        return None
    path = Path(*source.target.split("."))
    forms = (path.with_name(f"{path.name}.py"), path / "__init__.py")
    return next((root / form for root in _ROOTS for form in forms if (root / form).is_file()), None)


def configured_place(config: str, name: str) -> Place:
    """The file and line of a model's table in a configuration; the first line where it cannot be found."""
    heading = re.compile(rf"""\s*\[[\w.]*models\.["']?{re.escape(name)}["']?[].]""")
    try:
        lines = Path(config).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        lines = []
    return Place(config, next((i for i, line in enumerate(lines, start=1) if heading.match(line)), 1))
