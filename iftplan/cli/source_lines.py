"""Where in a repository a message about a model belongs: the line of its factory."""

from __future__ import annotations

import ast
from pathlib import Path

from iftplan.base.errors import IftplanError
from iftplan.models.sources import SourceKind, parse_source
from iftplan.report.page import Place


def source_place(source: str) -> Place | None:
    """The file and line of the function or class that a source names; None where it names no file.

    The file is parsed, never run.
    """
    try:
        parsed = parse_source(source)
        if parsed.kind is not SourceKind.FILE:
            return None
        tree = ast.parse(Path(parsed.target).read_text(encoding="utf-8"))
    except (IftplanError, OSError, ValueError, SyntaxError):
        return None
    defined = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    lines = (node.lineno for node in tree.body if isinstance(node, defined) and node.name == parsed.attribute)
    return Place(Path(parsed.target).as_posix(), next(lines, 1))
